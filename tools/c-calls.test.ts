import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { shapeOf } from './import-graph.ts';
import { repo } from './unit-tests.ts';

/** The C of each program: its folders, lowest first. */
const programs = {
  agent: ['src/engine', 'src/engine/guest'],
  'file server': ['src/engine', 'src/file-server'],
  scenarios: ['src/engine', 'src/engine/guest', 'src/engine/testing'],
} as const;

interface Source {
  /** Functions and variables that other files can use. */
  readonly shared: ReadonlySet<string>;
  readonly used: ReadonlySet<string>;
}

/** Names that a C file defines for others, and words that it uses; a definition in the file itself takes precedence. */
function parse(text: string): Source {
  const code = text.replace(/\/\*[^]*?\*\//g, ' ').replace(/"(?:[^"\\\n]|\\.)*"/g, '""');
  const names = (pattern: RegExp) => [...code.matchAll(pattern)].map(([, name = '']) => name);
  const own = [...names(/^static [^;={(]*?\b(\w+)\(/gm), ...names(/^static CALL\((\w+)\)/gm)];
  const shared = [
    ...names(/^(?!static|extern|typedef|return|else)\w[^;={(#]*?\b(\w+)\([^;{]*\)\s*\{/gm),
    ...names(/^(?!static|extern|typedef)\w[^;={(#]*?\b(\w+)(?:\[\])? = /gm),
  ];
  const words = new Set(names(/\b(\w+)\b/g));
  for (const name of [...own, ...shared]) words.delete(name);
  return { shared: new Set(shared), used: words };
}

/** Uses among C files: which file uses names that another defines. */
function callsBetween(sources: ReadonlyMap<string, string>): Map<string, Set<string>> {
  const parsed = [...sources].map(([path, text]) => [path, parse(text)] as const);
  return new Map(
    parsed.map(([path, { used }]) => [
      path,
      new Set(
        parsed.filter(([other, { shared }]) => other !== path && !used.isDisjointFrom(shared)).map(([other]) => other),
      ),
    ]),
  );
}

async function sourcesOf(folders: readonly string[]): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  for (const folder of folders) {
    const names = (await readdir(join(repo, folder))).filter((name) => name.endsWith('.c') && name !== 'compile.c');
    for (const name of names) sources.set(`${folder}/${name}`, await readFile(join(repo, folder, name), 'utf8'));
  }
  return sources;
}

it('callsBetween() sees calls, shared variables and addresses of functions, and no names that a file has of its own', () => {
  const calls = callsBetween(
    new Map([
      [
        'low.c',
        'static int kept(void)\n{\n}\nint low(void)\n{\n    return kept();\n}\nconst struct table low_table = {0};\n',
      ],
      ['high.c', 'static int kept(void)\n{\n}\nint high(void)\n{\n    return low() + kept(); /* other() */\n}\n'],
      ['other.c', 'int other(void)\n{\n    start(high, &low_table, "low");\n}\n'],
    ]),
  );
  assert.deepEqual(
    [...calls].map(([path, others]) => `${path}: ${[...others].join(' ')}`),
    ['low.c: ', 'high.c: low.c', 'other.c: low.c high.c'],
  );
});

for (const [program, folders] of Object.entries(programs)) {
  it(`no two C files of the ${program} call each other in a circle, and no folder calls one above it`, async () => {
    const calls = callsBetween(await sourcesOf(folders));
    assert.deepEqual(shapeOf(calls).circles, []);
    const folderOf = (path: string) => path.slice(0, path.lastIndexOf('/'));
    const rank = (path: string) => folders.findIndex((folder) => folder === folderOf(path));
    const isMain = (path: string) => path.endsWith('/program.c'); // names the tables of all
    const upward = [...calls].flatMap(([path, others]) =>
      [...others].filter((other) => rank(other) > rank(path) && !isMain(path)).map((other) => `${path} -> ${other}`),
    );
    assert.deepEqual(upward, []);
  });
}

/** Files that use the calls that the C of a folder gives to JavaScript. */
const users = {
  'src/engine': ['src/agent', 'src/file-server'],
  'src/engine/guest': ['src/agent'],
  'src/file-server': ['src/file-server'],
  'src/engine/testing': ['src/engine/testing'],
} as const;

for (const [folder, folders] of Object.entries(users)) {
  it(`every call that ${folder}/ gives to JavaScript is used by ${folders.join(' or ')}`, async () => {
    const texts: string[] = [];
    for (const user of folders) {
      for (const path of await readdir(join(repo, user), { recursive: true })) {
        if (path.endsWith('.ts') && !path.endsWith('.test.ts'))
          texts.push(await readFile(join(repo, user, path), 'utf8'));
      }
    }
    const all = texts.join('\n');
    const given = [...(await sourcesOf([folder])).values()].flatMap((text) =>
      [...text.matchAll(/JS_CFUNC_(?:MAGIC_)?DEF\("(\w+)"/g)].map(([, name = '']) => name),
    );
    assert.ok(given.length > 0);
    assert.deepEqual(
      given.filter((name) => !new RegExp(`\\.${name}\\(`).test(all)),
      [],
    );
  });
}
