import * as v from 'valibot';
import { isIP } from 'node:net';
import { parseQuantity } from '#base/quantity.ts';

/** The small values of Kubernetes objects; patterns and lengths from k8s.io/apimachinery/pkg/util/validation. */
const labelPattern = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const subdomainPattern = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const qualifiedNamePattern = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;

const text = v.string((issue) => `must be a string, got ${describe(issue.input)}${quoteHint(issue.input)}`);

/** Names a value of the wrong type, for an error: "a list", "the number 3". */
export function describe(input: unknown): string {
  if (Array.isArray(input)) return 'a list';
  if (input === null || input === undefined) return 'nothing';
  if (typeof input === 'object') return 'a mapping';
  if (typeof input === 'string') return `the string ${JSON.stringify(input.slice(0, 80))}`;
  return `the ${typeof input} ${typeof input === 'number' || typeof input === 'boolean' ? String(input) : ''}`.trimEnd();
}

function quoteHint(input: unknown): string {
  return typeof input === 'number' || typeof input === 'boolean' ? ' (quote it)' : '';
}

export const string = text;
export const boolean = v.boolean((issue) => `must be true or false, got ${describe(issue.input)}`);

export function integer(min: number, max: number) {
  const expected = (issue: { readonly input: unknown }) =>
    `must be a whole number from ${min} to ${max}, got ${describe(issue.input)}`;
  return v.pipe(v.number(expected), v.integer(expected), v.minValue(min, expected), v.maxValue(max, expected));
}

export const int32Max = 2 ** 31 - 1;
export const port = integer(1, 65_535);
/** User and group ids. */
export const id = integer(0, int32Max);
/** Permission bits; YAML reads `0644` as an octal number and JSON gives 420. */
export const fileMode = integer(0, 0o777);

export function picklist<const T extends readonly string[]>(options: T) {
  return v.picklist(options, (issue) => `must be one of ${options.join(', ')}, got ${describe(issue.input)}`);
}

function matching(pattern: RegExp, maxChars: number, what: string) {
  const message = (issue: { readonly input: unknown }) => `must be ${what}, got ${describe(issue.input)}`;
  return v.pipe(text, v.maxLength(maxChars, message), v.regex(pattern, message));
}

export const dnsLabel = matching(labelPattern, 63, 'a DNS label (a-z, 0-9, "-"; at most 63 characters)');
export const dnsSubdomain = matching(
  subdomainPattern,
  253,
  'a DNS subdomain (a-z, 0-9, "-", "."; at most 253 characters)',
);
export const portName = matching(
  /^(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-))*(?<!-)$/,
  15,
  'a port name (a-z, 0-9, "-"; at most 15 characters, at least one letter)',
);
/** Any printable ASCII but `=` (relaxed since Kubernetes 1.30). */
export const envName = matching(/^[\u0020-\u003c\u003e-\u007e]+$/, 32_768, 'an environment variable name without "="');
export const configKey = v.pipe(
  matching(/^[-._a-zA-Z0-9]+$/, 253, 'a key (letters, digits, "-", "_", "."; at most 253 characters)'),
  v.check((key) => key !== '.' && !key.startsWith('..'), 'must not be "." or begin with ".."'),
);

function isQualifiedName(key: string): boolean {
  const parts = key.split('/');
  const name = parts.at(-1) ?? '';
  const prefix = parts.length === 2 ? parts[0] : undefined;
  if (parts.length > 2 || name.length > 63 || !qualifiedNamePattern.test(name)) return false;
  return prefix === undefined || (prefix.length <= 253 && subdomainPattern.test(prefix));
}

export const qualifiedName = v.pipe(
  text,
  v.check(isQualifiedName, (issue) => `must be a name like "example.com/name", got ${describe(issue.input)}`),
);
export const labelValue = v.pipe(
  text,
  v.check(
    (value) => value === '' || (value.length <= 63 && qualifiedNamePattern.test(value)),
    (issue) =>
      `must be a label value (letters, digits, "-", "_", "."; at most 63 characters), got ${describe(issue.input)}`,
  ),
);

export const ipAddress = v.pipe(
  text,
  v.check(
    (value) => isIP(value) !== 0,
    (issue) => `must be an IP address, got ${describe(issue.input)}`,
  ),
);

export const absolutePath = v.pipe(
  text,
  v.maxLength(4096, 'must have at most 4096 characters'),
  v.check(
    (value) => value.startsWith('/') && !value.includes('\0') && !value.split('/').includes('..'),
    (issue) => `must be an absolute path without "..", got ${describe(issue.input)}`,
  ),
);
/** A kubelet puts "/" before one that is relative (kubelet_pods.go, makeMounts). */
export const mountPath = v.pipe(
  text,
  v.minLength(1, 'must not be empty'),
  v.transform((path) => (path.startsWith('/') ? path : `/${path}`)),
  absolutePath,
);
/** Go's zero values, which clients may write or leave out. `absent.ts` leaves out most empty texts. */
const isZero = (value: unknown): boolean => value === 0 || value === '';

/** Treats a zero value as absent. */
export function unlessZero<const S extends v.GenericSchema<number | string>>(schema: S) {
  const given = v.transform((value: unknown) => (isZero(value) ? undefined : value));
  return v.optional(v.pipe(v.unknown(), given, v.optional(schema)));
}

/** Treats a zero value as `fallback`. */
export function unlessZeroOr<const S extends v.GenericSchema<number, number>>(schema: S, fallback: number) {
  const given = v.transform((value: unknown) => (isZero(value) ? fallback : value));
  return v.optional(v.pipe(v.unknown(), given, schema), fallback);
}

/** A path inside a volume. */
export const relativePath = v.pipe(
  text,
  v.minLength(1, 'must not be empty'),
  v.maxLength(4096, 'must have at most 4096 characters'),
  v.check(
    (value) => !value.startsWith('/') && !value.includes('\0') && !value.split('/').includes('..'),
    (issue) => `must be a relative path without "..", got ${describe(issue.input)}`,
  ),
);

/** A quantity as text, which `parseQuantity` accepts. */
export const quantity = v.pipe(
  v.union([v.string(), v.number()], (issue) => `must be a quantity such as 100m or 64Mi, got ${describe(issue.input)}`),
  v.transform(String),
  v.check(
    (value) => (parseQuantity(value)?.nano ?? -1n) >= 0n,
    (issue) => `must be a quantity such as 100m or 64Mi, not negative, got ${describe(issue.input)}`,
  ),
);

/** A port by number or by its name in the same container. */
export const portReference = v.pipe(
  v.union([v.number(), v.string()], (issue) => `must be a port number or name, got ${describe(issue.input)}`),
  v.check(
    (value) => typeof value === 'string' || (Number.isInteger(value) && value >= 1 && value <= 65_535),
    (issue) => `must be a port from 1 to 65535, got ${describe(issue.input)}`,
  ),
);

export function list<const S extends v.GenericSchema>(item: S, maxItems: number) {
  return v.pipe(
    v.array(item, (issue) => `must be a list, got ${describe(issue.input)}`),
    v.maxLength(maxItems, `must have at most ${maxItems} items`),
  );
}

/** A list of which no two items have the same key. */
export function keyedList<const S extends v.GenericSchema>(
  item: S,
  maxItems: number,
  keyOf: (item: v.InferOutput<S>) => string,
) {
  return v.pipe(
    list(item, maxItems),
    v.rawCheck(({ dataset, addIssue }) => {
      if (!dataset.typed) return;
      const seen = new Set<string>();
      dataset.value.forEach((value, index) => {
        const key = keyOf(value);
        if (seen.has(key)) {
          addIssue({ message: `is given twice: ${JSON.stringify(key)}`, path: [indexPath(dataset.value, index)] });
        }
        seen.add(key);
      });
    }),
  );
}

function indexPath(input: readonly unknown[], key: number): v.ArrayPathItem {
  return { type: 'array', origin: 'value', input: [...input], key, value: input[key] };
}

/** The path of an issue in one field of an object. */
export function fieldPath(input: object, key: string): v.ObjectPathItem {
  const record = input as Record<string, unknown>; // SAFE: only used as valibot's record of what it looked at
  return { type: 'object', origin: 'value', input: record, key, value: record[key] };
}

/**
 * Requires exactly one of `keys`. `others` are further keys that Kubernetes has and the schema does not:
 * `unsupported.ts` reports them, and they count here, so that one mistake has one message. The object's schema must
 * keep them (`looseObject`).
 */
export function exactlyOne<T extends object>(
  keys: readonly (keyof T & string)[],
  what: string,
  others: readonly string[] = [],
) {
  return v.check<T, string>(
    (value) => {
      const given = new Set(Object.entries(value).flatMap(([key, it]) => (it === undefined ? [] : [key])));
      return [...keys, ...others].filter((key) => given.has(key)).length === 1;
    },
    `must have exactly one ${what}: ${keys.join(', ')}`,
  );
}

const unsupported = new WeakSet<object>();

/** Checks for a value that Kubernetes accepts but a pod in a machine does not support. */
export function supported<T>(test: (value: T) => boolean, message: (issue: { readonly input: T }) => string) {
  const check = v.check<T, (issue: v.CheckIssue<T>) => string>(test, message);
  unsupported.add(check.requirement);
  return check;
}

/** Returns whether the issue is about a value that Kubernetes accepts and PodVM does not support. */
export function isUnsupported(issue: v.BaseIssue<unknown>): boolean {
  return typeof issue.requirement === 'function' && unsupported.has(issue.requirement);
}

export const imageReference = v.pipe(
  string,
  v.maxLength(1024, 'must have at most 1024 characters'),
  v.regex(/^[A-Za-z0-9[][^\s\0]*$/, (issue) => `must be an image reference, got ${describe(issue.input)}`),
);
