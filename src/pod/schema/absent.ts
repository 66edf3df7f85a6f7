/** The parts of a valibot schema that can hold named fields. */
interface SchemaShape {
  readonly type?: string;
  readonly entries?: Readonly<Record<string, SchemaShape>>;
  readonly item?: SchemaShape;
  readonly wrapped?: SchemaShape;
}

/**
 * Replaces nulls (`key:` without a value) as Kubernetes does, by the rules of Go's JSON: a null field of an object is
 * left out, a null in a map or list of strings becomes "", and a null in a list of objects becomes an empty object.
 */
export function withoutNulls(schema: object, value: unknown): unknown {
  const shape: SchemaShape = schema;
  if (shape.wrapped !== undefined) return withoutNulls(shape.wrapped, value);
  if (Array.isArray(value)) {
    const { item } = shape;
    return value.map((it: unknown) => (item === undefined ? it : withoutNulls(item, it ?? emptyOf(item))));
  }
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value);
  if (shape.type === 'record') return Object.fromEntries(entries.map(([key, child]) => [key, child ?? '']));
  if (shape.entries === undefined) return value;
  const known = shape.entries;
  return Object.fromEntries(
    entries
      .filter(([, child]) => child !== null)
      .map(([key, child]) => [key, Object.hasOwn(known, key) ? withoutNulls(known[key] ?? {}, child) : child]),
  );
}

function emptyOf(item: SchemaShape): unknown {
  if (item.wrapped !== undefined) return emptyOf(item.wrapped);
  if (item.entries !== undefined) return {};
  return item.type === 'string' ? '' : null;
}
