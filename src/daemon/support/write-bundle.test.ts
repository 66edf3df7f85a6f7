import assert from 'node:assert/strict';
import { mkdtempDisposable, readdir, readFile, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { kindOf } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { writeBundle } from './write-bundle.ts';

const signal = new AbortController().signal;

test('writes one private file, whose names lead nowhere else, without credentials and within a bound', async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), 'podvm-bundle-'));
  const output = join(directory.path, 'bundle.tar.gz');
  const files = [
    { name: 'host.txt', text: 'mirror https://me:hunter2@example.invalid/\n' },
    { name: '../../etc/x;y', text: 'evil' },
    { name: 'large.log', text: `first${'x'.repeat(2_000_000)}last` },
  ];
  const told = await writeBundle(output, files, ['A note.'], signal);
  assert.match(told, /^A note\.\n/);
  assert.match(told, /\n +4 {2}_\/_\/etc\/x_y\n/);
  assert.equal((await stat(output)).mode & 0o777, 0o600);

  await run('tar', ['--extract', `--file=${output}`, `--directory=${directory.path}`], { signal });
  const root = join(directory.path, 'podvm-support');
  assert.deepEqual((await readdir(root)).toSorted(), ['CONTENTS.txt', '_', 'host.txt', 'large.log']);
  assert.equal(await readFile(join(root, 'host.txt'), 'utf8'), 'mirror https://REDACTED@example.invalid/\n');
  assert.equal(await readFile(join(root, 'CONTENTS.txt'), 'utf8'), told);
  const large = await readFile(join(root, 'large.log'), 'utf8');
  assert.match(large, /^\(the first \d+ characters are left out\)\nx+last$/);
  assert.ok(large.length < 1_100_000);

  await assert.rejects(writeBundle(output, files, [], signal), (error) => kindOf(error) === 'alreadyExists');
  await assert.rejects(writeBundle(join(directory.path, 'no/such'), files, [], signal), /Cannot write .*ENOENT/);
  assert.deepEqual(
    (await readdir(tmpdir())).filter((name) => name.startsWith(`podvm-support-`) && !name.endsWith('.gz')),
    [],
  );
});
