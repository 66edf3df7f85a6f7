import fc from 'fast-check';
import type * as v from 'valibot';

/** Parts of valibot's schemas that are used here. */
interface Schema {
  readonly type: string;
  readonly pipe?: readonly Check[];
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly item?: Schema;
  readonly wrapped?: Schema;
  readonly key?: Schema;
  readonly value?: Schema;
  readonly options?: readonly unknown[];
  readonly literal?: unknown;
}
interface Check {
  readonly type: string;
  readonly requirement?: unknown;
}

/** Values for fields by name and type (`port number`), which have to agree with each other. */
export type Vocabulary = Readonly<Record<string, fc.Arbitrary<unknown>>>;

/** Values that no field takes, or only some. */
const hostile: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(null, true, '', [], {}, -1, 0.5, 2 ** 53, 1e308, -0, '\0', '../x', 'ü'.repeat(70), '\ud800'),
  fc.constant(JSON.parse('{"__proto__":{"kind":"push"},"constructor":1}')),
  fc.jsonValue({ maxDepth: 3 }),
);

/**
 * Returns values that a schema accepts, and sometimes one that it does not: so they pass the first checks. Follows the
 * schema, so that an added field is fuzzed, too.
 */
export function valuesOf(schema: v.GenericSchema, words: Vocabulary): fc.Arbitrary<unknown> {
  return valueOf(schema, '', words);
}

function valueOf(schema: Schema, key: string, words: Vocabulary): fc.Arbitrary<unknown> {
  const good = words[`${key} ${schema.type}`] ?? goodOf(schema, key, words);
  return fc.oneof({ weight: 40, arbitrary: good }, { weight: 1, arbitrary: hostile });
}

function goodOf(schema: Schema, key: string, words: Vocabulary): fc.Arbitrary<unknown> {
  const checks = new Map(schema.pipe?.map(({ type, requirement }) => [type, requirement]));
  const number = (name: string, absent: number) => Number(checks.get(name) ?? absent);
  switch (schema.type) {
    case 'object':
      return objectOf(schema.entries ?? {}, words);
    case 'optional':
    case 'nullable': {
      const absent = schema.type === 'nullable' ? null : undefined;
      const wrapped = schema.wrapped === undefined ? hostile : valueOf(schema.wrapped, key, words);
      return fc.option(wrapped, { nil: absent, freq: 2 });
    }
    case 'array':
      return schema.item === undefined
        ? hostile
        : fc.array(valueOf(schema.item, key, words), { minLength: number('min_length', 0), maxLength: 4 });
    case 'record':
      return fc.dictionary(fc.string({ maxLength: 20 }), schema.value ? valueOf(schema.value, key, words) : hostile, {
        maxKeys: 3,
      });
    case 'picklist':
      return fc.constantFrom(...(schema.options ?? [null]));
    case 'literal':
      return fc.constant(schema.literal);
    case 'boolean':
      return fc.boolean();
    case 'number':
      return numbers(number('min_value', -(2 ** 31)), number('max_value', 2 ** 53 - 1));
    case 'string': {
      const pattern = checks.get('regex');
      const start = checks.get('starts_with');
      const texts = pattern instanceof RegExp ? fc.stringMatching(pattern) : fc.string({ maxLength: 40 });
      return typeof start === 'string' ? texts.map((text) => start + text) : texts;
    }
    default:
      return hostile;
  }
}

/** Small numbers, and both ends of the range. */
function numbers(min: number, max: number): fc.Arbitrary<number> {
  return fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min, max: Math.min(max, Math.max(min, 0) + 100) }) },
    { weight: 1, arbitrary: fc.constantFrom(min, max, min - 1, max + 1) },
  );
}

function objectOf(entries: Readonly<Record<string, Schema>>, words: Vocabulary): fc.Arbitrary<unknown> {
  const fields = Object.fromEntries(
    Object.entries(entries).map(([name, schema]) => [name, valueOf(schema, name, words)]),
  );
  return fc.record(fields);
}
