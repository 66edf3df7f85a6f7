import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { buffer, text } from 'node:stream/consumers';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { run } from '#host/process/run.ts';
import {
  listCommand,
  maxEntries,
  modeText,
  normalPath,
  parentOf,
  parseListing,
  readCommand,
  textOf,
} from './client/container-files.ts';
import { yamlText } from './client/yaml-text.ts';
import { parse } from 'yaml';

/** Runs a command as a container would. */
async function ran([program = '', ...args]: readonly string[]) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr, [code]] = await Promise.all([buffer(child.stdout), text(child.stderr), once(child, 'close')]);
  return { stdout, stderr, code: code as number | null }; // SAFE: what a child emits
}

describe('the list of a directory', () => {
  it('has every entry under its own name, whatever that is', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-files-'));
    const names = [
      '-n',
      '.hidden',
      '..two dots',
      'a b',
      '<img src=x onerror=alert(1)>',
      'two\nlines',
      '\u001b]0;x\u0007',
    ];
    for (const name of names) await writeFile(join(directory, name), 'x'.repeat(7));
    await writeFile(Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0x66, 0xff])]), '');
    await mkdir(join(directory, 'etc'));
    await symlink('etc', join(directory, 'link'));
    await symlink('nowhere', join(directory, 'dangling'));
    await run('mkfifo', ['--mode=600', join(directory, 'pipe')]);
    const { stdout, code } = await ran(listCommand(directory));
    assert.equal(code, 0);
    const { entries, isCut } = parseListing(stdout);
    assert.equal(isCut, false);
    const kindOf = (name: string) => entries.find((entry) => entry.name === name)?.kind;
    assert.deepEqual(
      entries.filter(({ kind }) => kind === 'directory').map(({ name }) => name),
      ['etc', 'link'],
    );
    assert.deepEqual([kindOf('pipe'), kindOf('dangling')], ['other', 'other']);
    for (const name of names) {
      const entry = entries.find((each) => each.name === name);
      assert.deepEqual([entry?.kind, entry?.isNamable, entry?.details?.sizeBytes], ['file', true, 7], name);
    }
    assert.deepEqual(
      entries.filter(({ isNamable }) => !isNamable).map(({ name }) => name),
      ['f\ufffd'],
    );
    assert.equal(entries.find(({ name }) => name === 'pipe')?.details?.mode, 'prw-------');
    assert.equal(entries.length, names.length + 5);
    await rm(directory, { recursive: true });
  });

  it('is empty for an empty directory, and fails for a file', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-files-'));
    assert.deepEqual(parseListing((await ran(listCommand(directory))).stdout), { entries: [], isCut: false });
    await writeFile(join(directory, 'file'), '');
    const refused = await ran(listCommand(join(directory, 'file')));
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /file/);
    await rm(directory, { recursive: true });
  });

  it('is cut after its limit', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-files-'));
    for (let at = 0; at < maxEntries + 5; at += 1) await writeFile(join(directory, `file-${at}`), '');
    const { entries, isCut } = parseListing((await ran(listCommand(directory))).stdout);
    assert.deepEqual([entries.length, isCut], [maxEntries, true]);
    assert.ok(entries.every(({ details }) => details !== undefined));
    await rm(directory, { recursive: true });
  });

  it('is made of any bytes that a container writes, without names of other places', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (noise) => {
        for (const { name } of parseListing(noise).entries) assert.ok(!/^\.{0,2}$|\//.test(name), name);
      }),
    );
    const hostile = Buffer.from('f./../../etc/passwd\0d./..\0f./\0f./fine\0\0zz 1 1\n');
    assert.deepEqual(parseListing(hostile).entries, [{ name: 'fine', kind: 'file', isNamable: true }]);
  });
});

describe('a file of a container', () => {
  it('is read up to a limit, and no fifo or device is', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-files-'));
    const file = join(directory, '-c two words');
    await writeFile(file, 'abcdef');
    assert.equal((await ran(readCommand(file, 4))).stdout.toString(), 'abcd');
    await run('mkfifo', [join(directory, 'pipe')]);
    for (const other of [join(directory, 'pipe'), '/dev/zero', directory, join(directory, 'absent')]) {
      const { code, stderr, stdout } = await ran(readCommand(other, 4));
      assert.deepEqual([code, stdout.length], [1, 0], other);
      assert.match(stderr, /is not a file with content/);
    }
    await rm(directory, { recursive: true });
  });

  it('is text, or is not shown', () => {
    assert.equal(textOf(Buffer.from('grün\n')), 'grün\n');
    assert.equal(textOf(Buffer.from('grün').subarray(0, 3)), 'gr', 'a character that is cut');
    assert.equal(textOf(Buffer.from([0x7f, 0x45, 0, 1])), undefined);
    assert.equal(textOf(Buffer.from([0xff, 0xfe, 0x41])), undefined);
  });

  it('has a path without dots', () => {
    assert.equal(normalPath('/a/./b//../c/'), '/a/c');
    assert.equal(normalPath('../..'), '/');
    assert.deepEqual([parentOf('/a/b'), parentOf('/')], ['/a', '/']);
  });

  it('has a mode as ls writes it', () => {
    assert.deepEqual([0o100644, 0o41777, 0o104755, 0o102644, 0o120777].map(modeText), [
      '-rw-r--r--',
      'drwxrwxrwt',
      '-rwsr-xr-x',
      '-rw-r-Sr--',
      'lrwxrwxrwx',
    ]);
  });
});

describe('YAML of a pod', () => {
  it('is what its JSON says, whatever the strings are', () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => {
        const json: unknown = JSON.parse(JSON.stringify(value));
        for (const version of ['1.1', '1.2'] as const)
          assert.deepEqual(parse(yamlText(value), { version, schema: version === '1.1' ? 'yaml-1.1' : 'core' }), json);
      }),
    );
  });

  it('is in blocks, with quotes where a string would be something else', () => {
    const pod = {
      kind: 'Pod',
      spec: { containers: [{ name: 'main', args: ['yes', '1e3', 'a: b'], ports: [] }], size: 1 },
    };
    assert.equal(
      yamlText(pod),
      `kind: Pod
spec:
  containers:
  - name: main
    args:
    - "yes"
    - "1e3"
    - "a: b"
    ports: []
  size: 1
`,
    );
  });
});
