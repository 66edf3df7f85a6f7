import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { after, before, test } from 'node:test';
import { manifestsIn, readFiles } from './read-files.ts';
import type { Terminal } from '../terminal/terminal.ts';

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'podvm-files-'));
});
after(async () => await rm(directory, { recursive: true }));

const terminalOf = (input: Iterable<Buffer>): Terminal => {
  // SAFE: only the stream's chunks are read
  const stdin = Readable.from(input) as unknown as NodeJS.ReadStream;
  return {
    stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    hasColour: false,
    outputGone: new AbortController().signal,
  };
};
const read = async (bytes: Buffer) => {
  const path = join(directory, 'f.yaml');
  await writeFile(path, bytes);
  const [file] = await readFiles([path], terminalOf([]));
  return file?.text;
};

test('readFiles() reads UTF-8 and UTF-16 by their byte order marks', async () => {
  const text = 'a: grün 😀\n';
  assert.equal(await read(Buffer.from(text)), text);
  assert.equal(await read(Buffer.from(`\ufeff${text}`)), text);
  const wide = Buffer.from(`\ufeff${text}`, 'utf16le');
  assert.equal(await read(wide), text);
  assert.equal(await read(wide.swap16()), text);
});

test('readFiles() refuses bytes that are not text', async () => {
  await assert.rejects(read(Buffer.from([0x61, 0xff, 0x61])), {
    message: /f\.yaml: it is not UTF-8 text$/,
    fix: 'Save the file as UTF-8.',
  });
  await assert.rejects(read(Buffer.from([0xff, 0xfe, 0x61])), { message: /it is not UTF-16LE text$/ });
});

test('readFiles() stops at the limits of a file, a pipe, a device and the total', async () => {
  const huge = join(directory, 'huge.yaml');
  await writeFile(huge, '');
  await truncate(huge, 50_000_000_000);
  await assert.rejects(readFiles([huge], terminalOf([])), { message: /huge\.yaml: it must have at most \d+ bytes/ });
  await assert.rejects(readFiles(['/dev/zero'], terminalOf([])), { message: /at most \d+ bytes/ });
  let given = 0;
  const endless = function* () {
    for (;;) {
      given += 1_000_000;
      yield Buffer.alloc(1_000_000, 'x');
    }
  };
  await assert.rejects(readFiles(['-'], terminalOf(endless())), { message: /<stdin>: it must have at most \d+ bytes/ });
  assert.ok(given < 50_000_000, `${given}`);
  const path = join(directory, 'four.yaml');
  await writeFile(path, Buffer.alloc(4_000_000, 'x'));
  await assert.rejects(readFiles([path, path, path], terminalOf([])), {
    message: /all files together must have at most \d+ characters$/,
  });
});

test('readFiles() refuses more files than a node takes, before it reads them', async () => {
  const names = Array.from({ length: 65 }, (_, at) => `none-${at}.yaml`);
  await assert.rejects(readFiles(names, terminalOf([])), {
    kind: 'invalid',
    message: 'Cannot read 65 files: one command takes at most 64',
  });
});

test('manifestsIn() takes the manifests of a directory by name, and leaves other names as they are', async () => {
  const path = join(directory, 'app');
  await mkdir(join(path, 'below'), { recursive: true });
  await assert.rejects(manifestsIn([path]), { kind: 'invalid', message: /app: the directory has no \.yaml/ });
  for (const name of ['b.yaml', 'a.yml', 'c.json', 'README.md', 'below/d.yaml']) await writeFile(join(path, name), '');
  assert.deepEqual(await manifestsIn(['-', path, 'none.yaml']), [
    '-',
    ...['a.yml', 'b.yaml', 'c.json'].map((name) => join(path, name)),
    'none.yaml',
  ]);
});

test('readFiles() reads from a web server, up to the limits of a file, and says why it cannot', async () => {
  const server = createServer((request, response) => {
    if (request.url === '/endless') {
      const write = () => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536, 'a')));
      };
      response.on('drain', write);
      write();
    } else if (request.url === '/moved') response.writeHead(302, { location: '/web.yaml' }).end();
    else response.writeHead(request.url === '/web.yaml' ? 200 : 404).end('kind: Pod\n');
  });
  try {
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`; // SAFE: it listens on TCP
    for (const path of ['/web.yaml', '/moved']) {
      const [url] = await manifestsIn([`${at}${path}`]);
      assert.deepEqual(await readFiles([url ?? ''], terminalOf([])), [{ name: `${at}${path}`, text: 'kind: Pod\n' }]);
    }
    await assert.rejects(readFiles([`${at}/none`], terminalOf([])), { message: /\/none: the server answers 404$/ });
    await assert.rejects(readFiles([`${at}/endless`], terminalOf([])), { message: /at most \d+ bytes/ });
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
    await assert.rejects(readFiles([at], terminalOf([])), { kind: 'unavailable' });
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

test('readFiles() leaves the connection of an answer that is no file', { timeout: 20_000 }, async () => {
  const left = Promise.withResolvers<void>();
  const server = createServer((_request, response) => {
    response.once('close', left.resolve);
    response.writeHead(503).write('slow'); // and no end
  });
  try {
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo; // SAFE: it listens on TCP
    await assert.rejects(readFiles([`http://127.0.0.1:${port}/`], terminalOf([])), { message: /answers 503$/ });
    await left.promise;
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
