/**
 * The table of layers: which folder under `src/` may import which others. One source for the lint rules
 * (`oxlint.config.ts`), their test (`tools/layers.test.ts`) and the picture in `docs/architecture.md`.
 */
export const layers = {
  base: [],
  wire: ['base'],
  api: ['base'],
  engine: [],
  agent: ['base', 'wire', 'engine'],
  'file-server': ['base', 'wire', 'engine'],
  host: ['base'],
  vm: ['base', 'host'],
  image: ['base', 'host'],
  storage: ['base', 'host'],
  network: ['base', 'host'],
  link: ['base', 'host', 'wire'],
  sandbox: ['base', 'wire', 'host', 'vm', 'image', 'storage', 'network', 'link'],
  pod: ['base', 'host', 'sandbox'],
  metrics: ['base', 'host', 'image', 'sandbox'],
  cri: ['base', 'host', 'image', 'sandbox', 'metrics'],
  shim: ['base', 'host', 'sandbox'],
  admin: ['base', 'api', 'host', 'image', 'storage', 'pod', 'sandbox', 'metrics'],
  setup: ['base', 'host'],
  daemon: [
    'base',
    'api',
    'host',
    'vm',
    'image',
    'storage',
    'network',
    'link',
    'sandbox',
    'pod',
    'metrics',
    'cri',
    'shim',
    'admin',
    'setup',
  ],
  cli: ['base', 'api', 'host'],
  dashboard: ['base', 'api', 'host'],
} as const satisfies Record<string, readonly string[]>;

export type Layer = keyof typeof layers;

/** Layers whose code also runs, or must be able to run, on the guest's engine: no `node:` modules there. */
export const neutralLayers: readonly Layer[] = ['base', 'wire', 'api', 'engine', 'agent', 'file-server'];
