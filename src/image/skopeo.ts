import { PodvmError } from '#base/errors.ts';
import { defaultEnv, run } from '#host/run.ts';
import type { ErrorKind } from '#base/errors.ts';
import { ociArchitecture } from './oci.ts';

/** How to reach a registry; `skopeo` itself reads the host's registries.conf (mirrors) and signature policy. */
export interface Access {
  readonly insecure: boolean;
  readonly authFile?: string;
}

const pullTimeoutMs = 60 * 60 * 1000;
const maxManifestBytes = 4 * 1024 * 1024;

/** The manifest or index that a `docker://` source names, as the registry keeps it. */
export async function inspectRaw(source: string, access: Access, signal: AbortSignal): Promise<string> {
  const flags = [...accessFlags('', access), '--raw'];
  return (await skopeo(source, ['inspect', ...flags, source], signal, maxManifestBytes)).stdout;
}

/** Copies one image into an OCI layout; skopeo checks every blob against its digest. */
export async function copyToLayout(source: string, layout: string, access: Access, signal: AbortSignal): Promise<void> {
  const flags = source.startsWith('docker://') ? accessFlags('src-', access) : [];
  await skopeo(source, ['copy', '--quiet', ...flags, source, `oci:${layout}:image`], signal, maxManifestBytes);
}

function accessFlags(side: '' | 'src-', { insecure, authFile }: Access): string[] {
  return [
    ...(insecure ? [`--${side}tls-verify=false`] : []),
    ...(authFile === undefined ? [] : [`--${side === '' ? '' : 'src-'}authfile`, authFile]),
  ];
}

async function skopeo(source: string, args: readonly string[], signal: AbortSignal, maxOutputBytes: number) {
  const global = ['--override-os', 'linux', '--override-arch', ociArchitecture()];
  const env = { ...defaultEnv(), TMPDIR: '/var/tmp' };
  try {
    return await run('skopeo', [...global, ...args], { signal, env, timeoutMs: pullTimeoutMs, maxOutputBytes });
  } catch (error) {
    throw explain(source, error);
  }
}

/** What skopeo's words mean. Its own last lines stay in the error. */
const meanings: readonly {
  readonly words: RegExp;
  readonly kind: ErrorKind;
  readonly reason: string;
  readonly fix?: string;
}[] = [
  {
    words: /server gave HTTP response to HTTPS client/,
    kind: 'unavailable',
    reason: 'the registry speaks plain HTTP',
    fix: 'Allow it with --insecure, or in registries.conf.',
  },
  {
    words: /unauthorized|authentication required|access denied|denied: /i,
    kind: 'denied',
    reason: 'the registry wants other credentials',
    fix: 'Give credentials with --authfile.',
  },
  {
    words: /manifest unknown|name unknown|not found|NAME_UNKNOWN|no such image|reference .* not found/i,
    kind: 'notFound',
    reason: 'there is no such image',
    fix: 'Check name and tag.',
  },
  {
    words: /no space left/i,
    kind: 'exhausted',
    reason: 'the disk is full',
    fix: 'Free some space or remove images with `podvm image rm`.',
  },
  {
    words: /x509|certificate/i,
    kind: 'unavailable',
    reason: "the registry's certificate is not trusted",
    fix: 'Install its CA on this machine, or use --insecure.',
  },
  {
    words: /no such host|connection refused|i\/o timeout|no route to host|network is unreachable|server misbehaving/i,
    kind: 'unavailable',
    reason: 'the registry does not answer',
    fix: 'Check the name of the registry and the network.',
  },
  {
    words: /digest|unexpected EOF|did not match|checksum|short read/i,
    kind: 'corrupt',
    reason: 'what arrived does not match its digest',
  },
  {
    words: /no image found in .*(?:index|list) for architecture/i,
    kind: 'unsupported',
    reason: 'there is no image for this machine',
  },
  { words: /no such file or directory/i, kind: 'notFound', reason: 'there is no such file' },
  {
    words: /rejected by policy|signature/i,
    kind: 'denied',
    reason: "this machine's signature policy refuses it",
    fix: 'See /etc/containers/policy.json.',
  },
];

function explain(source: string, error: unknown): unknown {
  if (!(error instanceof PodvmError) || error.kind !== 'internal') return error;
  const said = `${error.message}\n${error.tail.join('\n')}`;
  const name = source.replace(/^docker:\/\//, '');
  const meaning = meanings.find(({ words }) => words.test(said));
  return new PodvmError(
    meaning?.kind ?? 'internal',
    `Cannot fetch image ${name}: ${meaning?.reason ?? 'skopeo failed'}`,
    {
      cause: error,
      tail: error.tail,
      ...(meaning?.fix === undefined ? {} : { fix: meaning.fix }),
    },
  );
}
