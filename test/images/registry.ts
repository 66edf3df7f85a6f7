import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from '#host/process/run.ts';
import { sha256 } from './image-tree.ts';

/** A real registry on loopback, gone with its storage after disposal. */
export interface Registry extends AsyncDisposable {
  /** `localhost:<port>`. */
  readonly name: string;
  /** Directory of its blobs. */
  readonly storage: string;
  /** PEM of the CA that signed its certificate; only with TLS. */
  readonly caFile: string;
  /** Pushes the one image of an OCI layout; `format`: as OCI's or Docker's. */
  push(layout: string, repositoryAndTag: string, format?: 'oci' | 'v2s2'): Promise<void>;
  /** Pushes an index of what the repository has, entries as they are given, and returns its own entry. */
  pushIndex(repository: string, tag: string, entries: readonly object[]): Promise<PushedIndex>;
}

export interface PushedIndex {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export const user = 'shop';
export const password = 'secret';
/** Salt of bcrypt, the only form that the registry takes. */
const salt = '$2y$05$abcdefghijklmnopqrstuu';
const startTimeoutMs = 20_000;

export async function startRegistry(
  options: { readonly tls?: boolean; readonly auth?: boolean; readonly password?: string } = {},
): Promise<Registry> {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp('/var/tmp/podvm-registry-');
  undo.defer(() => rm(directory, { recursive: true }));
  const port = await freePort();
  const caFile = join(directory, 'cert.pem');
  if (options.tls) await makeCertificate(directory);
  const word = options.password ?? password;
  const { stdout: hash } = await run('perl', ['-e', 'print crypt($ARGV[0], $ARGV[1])', word, salt]);
  await writeFile(join(directory, 'htpasswd'), `${user}:${hash}\n`);
  const storage = join(directory, 'storage');
  const config = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: storage } },
    http: {
      addr: `127.0.0.1:${port}`,
      ...(options.tls ? { tls: { certificate: caFile, key: join(directory, 'key.pem') } } : {}),
    },
    ...(options.auth ? { auth: { htpasswd: { realm: 'test', path: join(directory, 'htpasswd') } } } : {}),
  };
  const configFile = join(directory, 'config.yml');
  await writeFile(configFile, JSON.stringify(config)); // JSON is YAML
  const child = spawn('docker-registry', ['serve', configFile], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  undo.defer(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  await untilAnswers(port);
  const owned = undo.move();
  const name = `localhost:${port}`;
  return {
    name,
    storage,
    caFile,
    push: async (layout, repositoryAndTag, format = 'oci') => {
      const flags = [
        '--quiet',
        ...['--format', format],
        '--dest-tls-verify=false',
        ...(options.auth ? [`--dest-creds=${user}:${word}`] : []),
      ];
      await run('skopeo', ['copy', ...flags, `oci:${layout}`, `docker://${name}/${repositoryAndTag}`]);
    },
    pushIndex: async (repository, tag, entries) => {
      const mediaType = 'application/vnd.oci.image.index.v1+json';
      const body = JSON.stringify({ schemaVersion: 2, mediaType, manifests: entries });
      const url = `http://127.0.0.1:${port}/v2/${repository}/manifests/${tag}`;
      const answer = await fetch(url, { method: 'PUT', body, headers: { 'content-type': mediaType } });
      if (!answer.ok) throw new Error(`Cannot push ${repository}:${tag}: ${await answer.text()}`);
      return { mediaType, digest: sha256(Buffer.from(body)), size: body.length };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function makeCertificate(directory: string): Promise<void> {
  const key = [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    join(directory, 'key.pem'),
  ];
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  await run('openssl', ['req', '-x509', ...key, '-out', join(directory, 'cert.pem'), '-days', '2', ...subject]);
}

/** A port of 127.0.0.1 without a listener. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  // SAFE: a server that listens on TCP has such an address.
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export async function untilAnswers(port: number): Promise<void> {
  const deadlineMs = Date.now() + startTimeoutMs;
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    try {
      await once(socket, 'connect');
      return;
    } catch (error) {
      if (Date.now() > deadlineMs) throw error;
      await delay(50);
    } finally {
      socket.destroy();
    }
  }
}
