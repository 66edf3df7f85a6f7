import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { unitOf } from './node-program.ts';

const repo = join(import.meta.dirname, '../..');

/** Settings of a unit by name, with all values in order. */
function settingsOf(unit: string): ReadonlyMap<string, readonly string[]> {
  const settings = new Map<string, string[]>();
  for (const line of unit.split('\n')) {
    const [, name = '', value = ''] = /^([A-Z]\w+)=(.*)$/.exec(line) ?? [];
    if (name !== '') settings.set(name, [...(settings.get(name) ?? []), value]);
  }
  return settings;
}

test('the unit of the checkout and that of the package leave the pods alive when the service stops', async () => {
  const units = [await readFile(join(repo, 'examples/podvm.service'), 'utf8'), await unitOf(repo, '/usr/bin/podvm')];
  for (const unit of units) {
    const settings = settingsOf(unit);
    // Only the daemon gets SIGTERM and SIGKILL; `control-group`, the default, and `mixed` end every process of the unit.
    assert.deepEqual(settings.get('KillMode'), ['process']);
    assert.equal(settings.has('SendSIGHUP'), false);
    // systemd does not change the cgroups of the pods' machines.
    assert.deepEqual(settings.get('Delegate'), ['yes']);
    // Pods' sockets and mounts stay: no namespace of the service's own, which would end with it.
    assert.deepEqual(settings.get('RuntimeDirectoryPreserve'), ['yes']);
    const owned = ['PrivateMounts', 'PrivateTmp', 'PrivateNetwork', 'PrivateDevices', 'ProtectSystem', 'ProtectHome'];
    assert.deepEqual(
      owned.filter((name) => settings.has(name)),
      [],
    );
    assert.deepEqual(settings.get('Restart'), ['on-failure']);
    assert.deepEqual(settings.get('OOMPolicy') ?? ['continue'], ['continue']);
  }
});
