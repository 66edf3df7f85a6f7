/** The same object with some members replaced; the others stay. */
export function around<T extends object>(inner: T, replaced: Partial<T>): T {
  const own: object = replaced;
  return new Proxy(inner, {
    get(target, key) {
      const holder = Object.hasOwn(own, key) ? own : target;
      const value: unknown = Reflect.get(holder, key, holder);
      return typeof value === 'function' && holder === target ? (value.bind(target) as unknown) : value;
    },
    set(target, key, value) {
      return Reflect.set(Object.hasOwn(own, key) ? own : target, key, value);
    },
  });
}
