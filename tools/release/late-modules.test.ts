import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';
import { run } from '#host/process/run.ts';
import { lateModules } from './late-modules.ts';

/** A program, bundled and run; `loaded()` in it tells whether Node has loaded the module of that name. */
async function outputOf(program: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-late-modules-'));
  await using undo = new AsyncDisposableStack();
  undo.defer(() => rm(directory, { recursive: true }));
  const [source, bundle] = [join(directory, 'source.cjs'), join(directory, 'bundle.cjs')];
  const loaded = 'const loaded = (name) => process.moduleLoadList.includes(`NativeModule ${name}`);\n';
  await writeFile(source, loaded + program);
  await build({ entryPoints: [source], outfile: bundle, bundle: true, platform: 'node', plugins: [lateModules] });
  return (await run(process.execPath, [bundle])).stdout;
}

test('a bundled package loads TLS and compression when it first uses them', async () => {
  const program = `
    const tls = require('tls'), zlib = require('node:zlib');
    const before = [loaded('tls'), loaded('zlib')];
    const text = zlib.gunzipSync(zlib.gzipSync('text')).toString();
    console.log(JSON.stringify([before, text, typeof tls.connect, [loaded('tls'), loaded('zlib')]]));`;
  assert.deepEqual(JSON.parse(await outputOf(program)), [[false, false], 'text', 'function', [true, true]]);
});

test('a bundled package that copies or lists such a module gets all of it', async () => {
  const program = `
    const zlib = require('zlib'), whole = process.getBuiltinModule('zlib');
    const names = (of) => JSON.stringify([Object.keys(of), Object.getOwnPropertyNames(of)]);
    console.log(names(zlib) === names(whole), { ...zlib }.gzip === whole.gzip, 'gzip' in zlib, 'nothing' in zlib);`;
  assert.equal(await outputOf(program), 'true true true false\n');
});
