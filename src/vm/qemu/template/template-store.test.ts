import assert from 'node:assert/strict';
import type { Stats } from 'node:fs';
import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { TemplateStore } from './template-store.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: templates belong to root';

async function emptyHouse() {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-templates-'));
  const store = new TemplateStore(join(directory, 'templates'));
  return {
    directory,
    store,
    async publish(key: string, content = 'devices'): Promise<void> {
      const files = { memory: join(directory, 'memory'), state: join(directory, 'state') };
      await writeFile(files.memory, 'pages');
      await writeFile(files.state, content);
      await store.publish(key, files);
    },
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

describe('TemplateStore', { skip }, () => {
  it('find() returns undefined in an empty store', async () => {
    await using place = await emptyHouse();
    assert.equal(await place.store.find('k'), undefined);
  });

  it('find() returns what was published, as read-only files', async () => {
    await using place = await emptyHouse();
    await place.publish('k');
    const found = await place.store.find('k');
    assert.ok(found !== undefined);
    assert.deepEqual((await readdir(found)).sort(), ['memory', 'state', 'template.json']);
    for (const name of ['memory', 'state']) {
      const file: Stats = await stat(join(found, name));
      assert.equal(file.mode & 0o777, 0o444);
      assert.equal(file.uid, 0);
    }
  });

  it('publish() keeps no disk space for pages of zeros, and all other bytes', async () => {
    await using place = await emptyHouse();
    const files = { memory: join(place.directory, 'memory'), state: join(place.directory, 'state') };
    const pages = Buffer.alloc(4 * 1024 * 1024);
    pages.write('kernel', 1024 * 1024);
    await writeFile(files.memory, pages);
    await writeFile(files.state, 'devices');
    await place.store.publish('k', files);
    const memory = join((await place.store.find('k')) ?? '', 'memory');
    assert.ok((await readFile(memory)).equals(pages));
    assert.ok((await stat(memory)).blocks * 512 < 1024 * 1024);
  });

  const edits: Record<string, (directory: string) => Promise<void>> = {
    'with appended memory': (directory) => appendFile(join(directory, 'memory'), 'x'),
    'with memory overwritten in place': (directory) => writeFile(join(directory, 'memory'), 'PAGES', { flag: 'r+' }),
    'with truncated state': (directory) => truncate(join(directory, 'state'), 3),
    'without state': (directory) => rm(join(directory, 'state')),
    'with a changed mode': (directory) => chmod(join(directory, 'memory'), 0o666),
    'with a truncated record': (directory) => truncate(join(directory, 'template.json'), 10),
  };
  for (const [which, edit] of Object.entries(edits)) {
    it(`find() rejects and removes a template ${which}`, async () => {
      await using place = await emptyHouse();
      await place.publish('k');
      await edit(join(place.directory, 'templates/k'));
      assert.equal(await place.store.find('k'), undefined);
      assert.deepEqual(await readdir(join(place.directory, 'templates')), []);
    });
  }

  it('find() returns undefined after an interrupted publish', async () => {
    await using place = await emptyHouse();
    await place.publish('k');
    await rm(join(place.directory, 'templates/k/template.json'));
    assert.equal(await place.store.find('k'), undefined);
  });

  it('publish() replaces an earlier template of that key', async () => {
    await using place = await emptyHouse();
    await place.publish('k', 'old');
    await place.publish('k', 'new');
    const found = await place.store.find('k');
    assert.equal(await readFile(join(found ?? '', 'state'), 'utf8'), 'new');
  });

  it('publish() leaves nothing when a file is missing', async () => {
    await using place = await emptyHouse();
    await assert.rejects(place.store.publish('k', { memory: '/no/such', state: '/no/such' }), { code: 'ENOENT' });
    assert.deepEqual(await readdir(join(place.directory, 'templates')), []);
  });

  it('keys() lists all finished templates, oldest first', async () => {
    await using place = await emptyHouse();
    await place.publish('late');
    await place.publish('early');
    await mkdir(join(place.directory, 'templates/.making-x'));
    await utimes(join(place.directory, 'templates/early'), 1, 1);
    assert.deepEqual(await place.store.keys(), ['early', 'late']);
  });

  it('collect() removes all templates but those to keep', async () => {
    await using place = await emptyHouse();
    await place.publish('old-1');
    await place.publish('new-1');
    await place.store.collect((key) => key.startsWith('new-'));
    assert.deepEqual(await readdir(join(place.directory, 'templates')), ['new-1']);
  });
});
