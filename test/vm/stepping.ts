/** Called at each `<part>.<method> begins` and `ended`; an error that it throws fails that call. */
export type AtStep = (step: string) => void;

/**
 * Returns the same part, but each call of one of its methods is reported before and after. `made`: by method, the name
 * of the part that it makes, whose methods are reported as well.
 */
export function stepping<T extends object>(part: T, name: string, at: AtStep, made: Made = {}): T {
  return new Proxy(part, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      const method = (...given: unknown[]): unknown => Reflect.apply(value, target, given);
      if (typeof key === 'symbol') return method;
      return (...given: unknown[]) => {
        const detail = key === 'call' ? ` ${String(given[0])}` : '';
        const step = `${name}.${key}${detail}`;
        at(`${step} begins`);
        const outcome = method(...given);
        if (!(outcome instanceof Promise)) return outcome;
        return outcome.then((result: unknown) => {
          at(`${step} ended`);
          const within = made[key];
          return within !== undefined && isObject(result) ? stepping(result, within, at) : result;
        });
      };
    },
  });
}

type Made = Readonly<Record<string, string>>;

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}
