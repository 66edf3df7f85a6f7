import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from '../src/host/process/run.ts';
import { layers, neutralLayers, type Layer } from './layers.ts';

/**
 * Shows that the gate on imports fails: in a copy of the rules, a file of every layer imports each of the others, and the
 * linter must refuse exactly what the table does not allow.
 */
const repo = join(import.meta.dirname, '..');
const planted = await mkdtemp(join(tmpdir(), 'podvm-layers-'));
after(() => rm(planted, { recursive: true }));

const names = Object.keys(layers) as Layer[]; // SAFE: the keys of that very table

await mkdir(join(planted, 'tools'));
for (const file of ['oxlint.config.ts', 'tools/layers.ts', 'package.json', 'tsconfig.json']) {
  await cp(join(repo, file), join(planted, file));
}
await symlink(join(repo, 'node_modules'), join(planted, 'node_modules'));
for (const layer of names) {
  await mkdir(join(planted, 'src', layer, 'nested'), { recursive: true });
  await writeFile(join(planted, 'src', layer, 'thing.ts'), 'export const thing = 1;\n');
  for (const other of names) {
    const to = (path: string) => `import { thing } from '${path}';\n\nexport const seen = thing;\n`;
    await writeFile(join(planted, 'src', layer, `alias-${other}.ts`), to(`#${other}/thing.ts`));
    if (other !== layer)
      await writeFile(join(planted, 'src', layer, `relative-${other}.ts`), to(`../${other}/thing.ts`));
  }
  await writeFile(
    join(planted, 'src', layer, 'node.ts'),
    "import { sep } from 'node:path';\n\nexport const seen = sep;\n",
  );
}

await writeFile(
  join(planted, 'src/host/spawning.ts'),
  "import { spawn } from 'node:child_process';\n\nexport const seen = spawn;\n",
);

for (const layer of ['vm', 'cli']) {
  const whole = 'export function begin(work: Promise<void>): void {\n  ACT;\n}\n';
  await writeFile(join(planted, 'src', layer, 'unattended.ts'), whole.replace('ACT', 'void work.finally(() => {})'));
  await writeFile(join(planted, 'src', layer, 'attended.ts'), whole.replace('ACT', 'work.catch(() => {})'));
}

/** Files that the linter refuses, as `layer/file.ts`, by rule. */
async function refused(): Promise<(rule: string) => ReadonlySet<string>> {
  const { stdout } = await run(join(repo, 'node_modules/.bin/oxlint'), ['--format=json', 'src'], {
    cwd: planted,
    okCodes: [0, 1],
    env: { PATH: `${join(repo, 'node_modules/.bin')}:/usr/bin:/bin` },
  });
  const report = JSON.parse(stdout) as { diagnostics: { code: string; filename: string }[] };
  return (rule) => {
    const bad = report.diagnostics.filter(({ code }) => code.includes(rule));
    return new Set(bad.map(({ filename }) => filename.replace(/^.*?src\//, '')));
  };
}

const refusedBy = await refused();
const found = refusedBy('no-restricted-imports');

test('the table has a row for every folder under src/, and names only such folders', async () => {
  const folders = (await readdir(join(repo, 'src'), { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const unknown = folders.map(({ name }) => name).filter((name) => !names.some((layer) => layer === name));
  assert.deepEqual(unknown, []);
  for (const [layer, allowed] of Object.entries(layers)) {
    for (const other of allowed) assert.ok(other in layers, `${layer} may import ${other}, which is no layer`);
  }
});

for (const layer of names) {
  const allowed: readonly string[] = layers[layer];
  test(`the linter lets ${layer}/ import its own row and refuses every other layer`, () => {
    for (const other of names) {
      const mayImport = other === layer || allowed.includes(other);
      assert.equal(found.has(`${layer}/alias-${other}.ts`), !mayImport, `${layer} imports #${other}`);
      if (other !== layer)
        assert.equal(found.has(`${layer}/relative-${other}.ts`), !mayImport, `${layer} imports ../${other}`);
    }
    assert.equal(found.has(`${layer}/node.ts`), neutralLayers.includes(layer), `${layer} imports node:path`);
  });
}

test('no layer can reach itself through others: the table has no cycle', () => {
  const visit = (layer: Layer, path: readonly Layer[]): void => {
    assert.ok(!path.includes(layer), `a cycle: ${[...path, layer].join(' -> ')}`);
    for (const next of layers[layer] as readonly Layer[]) visit(next, [...path, layer]); // SAFE: checked by the first test
  };
  for (const layer of names) visit(layer, []);
});

test('only one file calls spawn itself', () => {
  assert.ok(found.has('host/spawning.ts'));
});

test("in a node's own layers, a promise that nothing waits for has a handler of its errors", () => {
  assert.deepEqual([...refusedBy('no-floating-promises')], ['vm/unattended.ts']);
});
