import assert from 'node:assert/strict';
import { access, glob, readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { it } from 'node:test';

/** Compares the documents with the tree that they describe. */
const repo = join(import.meta.dirname, '..');
const inDocs = (await readdir(join(repo, 'docs'), { recursive: true })).filter((name) => name.endsWith('.md'));
const pages = ['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CHANGELOG.md', ...inDocs.map((name) => `docs/${name}`)];

/** A page's anchors, as GitHub makes them of its headings. */
async function anchorsOf(page: string): Promise<string[]> {
  const text = (await readFile(join(repo, page), 'utf8')).replace(/^```[^]*?^```/gm, '');
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
}

for (const page of pages) {
  it(`${page} names only files that are there`, async () => {
    const text = await readFile(join(repo, page), 'utf8');
    const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, to = '']) => join(dirname(page), to));
    const paths = [...text.matchAll(/`((?:src|test|tools|docs|examples|bench)\/[\w./-]+)`/g)].map(
      ([, path = '']) => path,
    );
    const missing: string[] = [];
    for (const path of [...links, ...paths]) {
      await access(join(repo, path)).catch(() => missing.push(path));
    }
    assert.deepEqual(missing, []);
  });

  it(`${page} links only to headings that are there`, async () => {
    const text = await readFile(join(repo, page), 'utf8');
    const missing: string[] = [];
    for (const [link, to = '', anchor = ''] of text.matchAll(/\]\(([^)#:]*)#([^)]+)\)/g)) {
      const target = to === '' ? page : join(dirname(page), to);
      if (!(await anchorsOf(target)).includes(anchor)) missing.push(link);
    }
    assert.deepEqual(missing, []);
  });
}

/** Files of Linux, gRPC and CNI that comments name as their sources. */
const theirs = new Set(['unistd_64.h', 'PROTOCOL-HTTP2.md', 'CONVENTIONS.md']);

it('comments in the sources name only files that are there', async () => {
  const tree = ['{src,test,tools,bench}/**/*.{ts,c,h}', 'docs/**/*.md', '*.{md,ts}'];
  const files = (await Array.fromAsync(glob(tree, { cwd: repo }))).map((file) => `/${file}`);
  const missing: string[] = [];
  for (const file of files.filter((name) => /^\/(src|test)\/.*\.(ts|c|h)$/.test(name))) {
    const text = await readFile(join(repo, file), 'utf8');
    for (const [comment] of text.matchAll(/\/\*[^]*?\*\/|(?<=^|[ \t;])\/\/.*$/gm)) {
      for (const [name] of comment.matchAll(/(?<![\w/.<$*-])(?:[\w-]+\/)*[\w-]+\.(?:ts|c|h|md)\b(?![\w/.-])/g)) {
        const isOurs = name.endsWith('.ts') || /^(src|test|tools|docs|bench)\//.test(name) || !name.includes('/');
        if (isOurs && !theirs.has(name) && !files.some((there) => there.endsWith(`/${name}`)))
          missing.push(`${file.slice(1)}: ${name}`);
      }
    }
  }
  assert.deepEqual(missing, []);
});

it('docs/dependencies.md has a reason for every npm package, and names no others', async () => {
  const text = await readFile(join(repo, 'docs/dependencies.md'), 'utf8');
  const { dependencies, devDependencies } = JSON.parse(await readFile(join(repo, 'package.json'), 'utf8')) as Record<
    'dependencies' | 'devDependencies',
    Record<string, string>
  >;
  assert.deepEqual(named(text, 'npm, at run time'), Object.keys(dependencies).sort());
  assert.deepEqual(named(text, 'npm, for development'), Object.keys(devDependencies).sort());
});

it('docs/dependencies.md has a reason for every Debian package of the host', async () => {
  const text = await readFile(join(repo, 'docs/dependencies.md'), 'utf8');
  const list = await readFile(join(repo, 'src/setup/host-packages.txt'), 'utf8');
  const packages = list.split('\n').flatMap((line) => (/^[a-z]/.test(line) ? [line.split(' ')[0] ?? ''] : []));
  assert.deepEqual(named(text, 'Debian packages of the host'), packages.sort());
});

/** Names in backticks in the first column of the section's table, sorted. */
function named(text: string, section: string): string[] {
  const [, after = ''] = text.split(`## ${section}\n`);
  const [body = ''] = after.split('\n## ');
  const cells = [...body.matchAll(/^\| (`[^|]+) \|/gm)].map(([, cell = '']) => cell);
  return cells.flatMap((cell) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)).sort();
}

it('the version is the same in the agent, in the lock file, and in the names of files that pages mention', async () => {
  const read = (file: string) => readFile(join(repo, file), 'utf8');
  const [, version] = /"version": "(.*)"/.exec(await read('package.json')) ?? [];
  const texts = await Promise.all(['README.md', 'docs/install.md'].map(read));
  const named = texts.flatMap((text) => [...text.matchAll(/podvm[-_](\d+\.\d+\.\d+)/g)].map(([, found]) => found));
  const [, ofAgent] = /agentVersion = '(.*)'/.exec(await read('src/agent/services.ts')) ?? [];
  const ofLock = [...(await read('package-lock.json')).matchAll(/"name": "podvm",\s+"version": "(.*)"/g)];
  assert.deepEqual([...new Set([...named, ofAgent, ...ofLock.map(([, found]) => found)])], [version]);
});
