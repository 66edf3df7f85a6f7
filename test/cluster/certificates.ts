import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';

const curve = ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];

/** The certificates of a cluster, in one directory: `NAME.crt` with `NAME.key`. */
export class Certificates {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /** Makes two authorities, `ca` and that of the API server's extensions, and the keys of service accounts. */
  static async make(directory: string): Promise<Certificates> {
    for (const name of ['ca', 'front-ca']) {
      const uses = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign'];
      const names = ['-keyout', join(directory, `${name}.key`), '-out', join(directory, `${name}.crt`)];
      const extensions = uses.flatMap((use) => ['-addext', use]);
      await run('openssl', [
        'req',
        '-x509',
        '-newkey',
        ...curve,
        '-nodes',
        '-days',
        '30',
        '-subj',
        `/CN=${name}`,
        ...names,
        ...extensions,
      ]);
    }
    const key = join(directory, 'accounts.key');
    await run('openssl', ['genrsa', '-out', key, '2048']);
    await run('openssl', ['rsa', '-in', key, '-pubout', '-out', join(directory, 'accounts.pub')]);
    return new Certificates(directory);
  }

  /** `names`: as in `subjectAltName`. */
  async sign(name: string, subject: string, names: readonly string[] = [], authority = 'ca'): Promise<void> {
    const path = (suffix: string) => join(this.directory, `${name}.${suffix}`);
    const uses = ['keyUsage=critical,digitalSignature,keyEncipherment', 'extendedKeyUsage=serverAuth,clientAuth'];
    if (names.length > 0) uses.push(`subjectAltName=${names.join(',')}`);
    await writeFile(path('ext'), `${uses.join('\n')}\n`);
    const request = ['-newkey', ...curve, '-nodes', '-keyout', path('key'), '-out', path('csr'), '-subj', subject];
    await run('openssl', ['req', '-new', ...request]);
    const signer = [
      '-CA',
      join(this.directory, `${authority}.crt`),
      '-CAkey',
      join(this.directory, `${authority}.key`),
    ];
    const made = ['-CAcreateserial', '-days', '30', '-extfile', path('ext'), '-out', path('crt')];
    await run('openssl', ['x509', '-req', '-in', path('csr'), ...signer, ...made]);
  }

  /** A kubeconfig for the owner of a certificate. */
  kubeconfig(name: string, server: string): string {
    const user = { 'client-certificate': this.#path(name, 'crt'), 'client-key': this.#path(name, 'key') };
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'cluster', cluster: { server, 'certificate-authority': this.#path('ca', 'crt') } }],
      users: [{ name, user }],
      contexts: [{ name, context: { cluster: 'cluster', user: name } }],
      'current-context': name,
    });
  }

  #path(name: string, suffix: string): string {
    return join(this.directory, `${name}.${suffix}`);
  }
}
