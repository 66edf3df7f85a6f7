import type { Plugin } from 'esbuild';

/**
 * Modules of Node that bundled packages require at once but seldom use: `ws` only for `wss:` and compression. Without
 * them, `podvm ps` takes 5 % less processor time.
 */
const late = /^(node:)?(https|tls|zlib)$/;

/** Loads these modules when a bundled CommonJS package first uses them. */
export const lateModules: Plugin = {
  name: 'late-modules',
  setup(build) {
    build.onResolve({ filter: late }, ({ path, kind }) =>
      kind === 'require-call' ? { path, namespace: 'late-module' } : undefined,
    );
    build.onLoad({ filter: late, namespace: 'late-module' }, ({ path }) => ({ contents: moduleOf(path) }));
  },
};

/** A proxy may report only properties as fixed that its target has, so that none is. */
const moduleOf = (path: string): string => `
  const loaded = () => process.getBuiltinModule('${path}');
  module.exports = new Proxy({}, {
    get: (_, key) => loaded()[key],
    has: (_, key) => key in loaded(),
    ownKeys: () => Reflect.ownKeys(loaded()),
    getOwnPropertyDescriptor: (_, key) => {
      const found = Reflect.getOwnPropertyDescriptor(loaded(), key);
      return found && { ...found, configurable: true };
    },
  });`;
