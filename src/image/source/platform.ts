import type { OciPlatform } from '../oci.ts';

/** The processor that containers see, which images must fit. */
export interface Processor {
  /** OCI's name: `amd64`. */
  readonly architecture: string;
  /** For amd64, the n of x86-64-vN, 1 to 4, as the x86-64 psABI defines them; otherwise 1. */
  readonly level: number;
}

/** Other names that containerd accepts. */
const aliases: Readonly<Record<string, string>> = { x86_64: 'amd64', 'x86-64': 'amd64', aarch64: 'arm64' };

/**
 * Returns the level of the processor that the platform uses, higher is better; undefined when it does not run. A
 * variant of amd64 is a level (`v3`), and a level above the processor's does not run.
 */
export function levelOf({ os, architecture, variant }: OciPlatform, processor: Processor): number | undefined {
  if (os !== 'linux' || architectureOf(architecture) !== processor.architecture) return undefined;
  const level = levelOfVariant(processor.architecture, (variant ?? '').toLowerCase());
  return level !== undefined && level <= processor.level ? level : undefined;
}

function levelOfVariant(architecture: string, variant: string): number | undefined {
  if (variant === '') return 1;
  if (architecture === 'arm64') return variant === 'v8' ? 1 : undefined;
  const level = architecture === 'amd64' ? /^v([1-4])$/.exec(variant)?.[1] : undefined;
  return level === undefined ? undefined : Number(level);
}

/** Returns the candidates that fit, the best first, and equal ones in their order. */
export function bestFirst<T>(
  all: readonly T[],
  platformOf: (one: T) => OciPlatform | undefined,
  processor: Processor,
): readonly { readonly one: T; readonly level: number }[] {
  return all
    .flatMap((one) => {
      const platform = platformOf(one);
      const level = platform === undefined ? undefined : levelOf(platform, processor);
      return level === undefined ? [] : [{ one, level }];
    })
    .sort((a, b) => b.level - a.level);
}

/** Formats `linux/amd64/v3` for messages, with `?` for missing parts; not escaped. */
export function describePlatform({ os, architecture, variant }: OciPlatform): string {
  return [os || '?', architecture || '?', ...(variant ? [variant] : [])].join('/');
}

export function describeProcessor({ architecture, level }: Processor): string {
  return describePlatform({ os: 'linux', architecture, variant: level > 1 ? `v${level}` : '' });
}

function architectureOf(word: string): string {
  const lower = word.toLowerCase();
  return aliases[lower] ?? lower;
}
