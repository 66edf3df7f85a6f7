import { lastOfEachName } from './container-environment.ts';
import { literal } from './literal.ts';
import { type FlagContext, podFlags, type PodPart } from './pod-flags.ts';

/** A Kubernetes Pod as in its YAML. The node checks it with the schema that it uses for files. */
export type PodObject = Readonly<Record<string, unknown>>;

export interface MadePod {
  readonly pod: PodObject;
  /** Paths of the host that must exist. */
  readonly mustExist: readonly string[];
  /** Images of its container and volumes. */
  readonly images: readonly string[];
}

/** Values of flags by their names in commander's form, `capAdd`. Absent ones were not given. */
export type FlagValues = Readonly<Record<string, unknown>>;

/** Translates a command line to the Pod that it means. Errors: `invalid`, naming the flag. */
export function podOfImage(flags: FlagValues, context: FlagContext): MadePod {
  const name = nameOfImage(context.image);
  const parts = podFlags.flatMap(({ option, partOf }) => {
    const value = flags[option.attributeName()];
    return value === undefined ? [] : [partOf(value, context)];
  });
  const base: PodPart = {
    metadata: { generateName: `${name}-` },
    container: {
      name,
      image: context.image,
      ...(context.words.length === 0 ? {} : { args: context.words.map(literal) }),
    },
    images: [context.image],
  };
  // SAFE: merging keeps the fields of each part
  const {
    metadata,
    spec,
    container,
    env = [],
    mustExist = [],
    images = [],
  } = [base, ...parts].reduce(merged, {}) as PodPart;
  const withEnv = env.length === 0 ? container : { ...container, env: lastOfEachName(env) };
  return {
    pod: withoutUndefined({ apiVersion: 'v1', kind: 'Pod', metadata, spec: { ...spec, containers: [withEnv] } }),
    mustExist,
    images,
  };
}

const maxNameChars = 50;

/** Name for container and pod: the last word of the image's name. */
function nameOfImage(image: string): string {
  const last = image.replace(/@.*$/, '').split('/').at(-1) ?? '';
  const label = last
    .replace(/:.*$/, '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-');
  return label.slice(0, maxNameChars).replaceAll(/^-+|-+$/g, '') || 'container';
}

type Tree = Readonly<Record<string, unknown>>;

function merged(one: object, other: object): Tree {
  const result: Record<string, unknown> = { ...one };
  for (const [key, value] of Object.entries(other)) {
    const before = result[key];
    if (Array.isArray(before) && Array.isArray(value))
      result[key] = [...(before as unknown[]), ...(value as unknown[])];
    else result[key] = isTree(before) && isTree(value) ? merged(before, value) : value;
  }
  return result;
}

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Removes the keys that a later part has set to undefined. */
function withoutUndefined(value: Tree): Tree {
  const kept = Object.entries(value).filter(([, it]) => it !== undefined);
  return Object.fromEntries(
    kept.map(([key, it]) => [key, isTree(it) ? withoutUndefined(it) : Array.isArray(it) ? it.map(cleaned) : it]),
  );
}

const cleaned = (item: unknown): unknown => (isTree(item) ? withoutUndefined(item) : item);
