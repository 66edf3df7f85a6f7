import { defineConfig } from 'oxlint';
import { layers, neutralLayers, type Layer } from './tools/layers.ts';

const names = Object.keys(layers) as Layer[]; // SAFE: the keys of that very table

/** What a file of `layer` may not import: every other layer that its row does not name. */
export function forbiddenImports(layer: Layer): { group: string[]; message: string }[] {
  const allowed: readonly string[] = [layer, ...layers[layer]];
  const groups = names
    .filter((name) => !allowed.includes(name))
    .map((name) => ({
      group: [`#${name}/*`, `**/../${name}/**`],
      message: `${layer}/ may not import ${name}/ (tools/layers.ts).`,
    }));
  if (neutralLayers.includes(layer)) {
    groups.push({ group: ['node:*'], message: `${layer}/ also runs in the guest: no node modules.` });
  }
  return groups;
}

/** A child that cannot be spawned, and has no listener, ends the process. */
const forbiddenSpawns = {
  name: 'node:child_process',
  importNames: ['spawn', 'exec', 'execFile', 'fork'],
  message: 'Start programs with startChild() or run() of host/.',
};

type Restriction = [
  'error',
  {
    patterns: { group: string[]; message: string }[];
    paths: { name: string; importNames: string[]; message: string }[];
  },
];

/**
 * Layers of a node's own work, in which each promise that nothing waits for says what its failure means: otherwise one
 * `EMFILE` is an unhandled rejection, and what waits for the end of that work waits for ever.
 */
const explicitLayers: readonly Layer[] = [
  'base',
  'host',
  'vm',
  'image',
  'storage',
  'network',
  'link',
  'sandbox',
  'metrics',
  'daemon',
];

const restricted = (layer: Layer): Restriction => [
  'error',
  { patterns: forbiddenImports(layer), paths: [forbiddenSpawns] },
];

export default defineConfig({
  plugins: ['typescript', 'unicorn', 'oxc', 'import', 'node'],
  options: { typeAware: true },
  categories: { correctness: 'error', suspicious: 'error' },
  rules: {
    'typescript/no-floating-promises': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
    'typescript/no-explicit-any': 'error',
    'typescript/no-non-null-assertion': 'error',
    'typescript/only-throw-error': 'error',
    'import/no-default-export': 'error',
    'no-console': 'error',
    'no-await-in-loop': 'off',
    'no-underscore-dangle': 'off',
    'import/no-unassigned-import': 'off',
    'unicorn/no-array-sort': 'off',
    'typescript/no-unsafe-type-assertion': 'off',
    'no-shadow': 'off',
    'unicorn/consistent-function-scoping': 'off',
    'typescript/consistent-return': 'off',
    'unicorn/no-useless-spread': 'off',
    'import/no-named-as-default-member': 'off',
  },
  overrides: [
    ...names.map((layer) => ({
      files: [`src/${layer}/**/*.{ts,tsx}`],
      excludeFiles: [`src/${layer}/**/*.test.ts`, 'src/host/process/start-child.ts'],
      rules: { 'no-restricted-imports': restricted(layer) },
    })),
    {
      files: explicitLayers.map((layer) => `src/${layer}/**/*.ts`),
      rules: { 'typescript/no-floating-promises': ['error', { ignoreVoid: false }] },
    },
    {
      files: ['**/*.test.ts', '**/*.conformance.ts', 'tools/**', 'bench/**'],
      rules: { 'no-console': 'off', 'typescript/no-floating-promises': 'off' },
    },
    { files: ['oxlint.config.ts'], rules: { 'import/no-default-export': 'off' } },
  ],
});
