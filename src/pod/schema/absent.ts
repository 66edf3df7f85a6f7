import * as v from 'valibot';

/** The parts of a valibot schema that can hold named fields. */
interface SchemaShape {
  readonly type?: string;
  readonly entries?: Readonly<Record<string, SchemaShape>>;
  readonly item?: SchemaShape;
  readonly wrapped?: SchemaShape;
}

/**
 * Leaves out what Kubernetes regards as absent, by the rules of Go's JSON: a field that is null (`key:` without a value), and
 * an optional text that is empty, unless the empty text has a meaning of its own. A null in a map or list of strings becomes
 * "", and a null in a list of objects becomes an empty object.
 */
export function withoutAbsent(schema: object, value: unknown): unknown {
  const shape: SchemaShape = schema;
  if (shape.wrapped !== undefined) return withoutAbsent(shape.wrapped, value);
  if (Array.isArray(value)) {
    const { item } = shape;
    return value.map((it: unknown) => (item === undefined ? it : withoutAbsent(item, it ?? emptyOf(item))));
  }
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value);
  if (shape.type === 'record') return Object.fromEntries(entries.map(([key, child]) => [key, child ?? '']));
  if (shape.entries === undefined) return value;
  const known = shape.entries;
  return Object.fromEntries(
    entries.flatMap(([key, child]: [string, unknown]) => {
      const field = (Object.hasOwn(known, key) ? known[key] : undefined) ?? {};
      return child === null || (child === '' && isOptionalText(field)) ? [] : [[key, withoutAbsent(field, child)]];
    }),
  );
}

/** Whether a field is an optional text that cannot be empty: Go's zero value, which clients may write or leave out. */
function isOptionalText(field: SchemaShape): boolean {
  const isText = ['string', 'picklist', 'literal'].includes(field.wrapped?.type ?? '');
  return isText && !v.is(field as v.GenericSchema, ''); // SAFE: a field of a schema is one
}

function emptyOf(item: SchemaShape): unknown {
  if (item.wrapped !== undefined) return emptyOf(item.wrapped);
  if (item.entries !== undefined) return {};
  return item.type === 'string' ? '' : null;
}
