import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { instance } from '@viz-js/viz';
import { fileOf, group, layerOf, readImports, roomOf, shapeOf, type Graph, type Shape } from './import-graph.ts';
import { repo } from './unit-tests.ts';

/**
 * `npm run graph` prints the layers of `src/`, `npm run graph -- sandbox` the rooms of one layer (its folders, and the
 * files beside them): floors, highest first, arrows, and arrows that do not lead down. `--svg FILE` draws them, too.
 * Tests are left out; imports of types count like all others.
 */
export function describe(title: string, graph: Graph, files: Graph): string {
  const shape = shapeOf(graph);
  const width = Math.max(0, ...[...graph.keys()].map((name) => name.length));
  const lines = shape.floors.flatMap((names, floor) => [
    ...names.map((name) => {
      const targets = [...(graph.get(name) ?? [])].sort().join(' ');
      return `${String(floor + 1).padStart(5)}  ${targets === '' ? name : `${name.padEnd(width)} -> ${targets}`}`;
    }),
  ]);
  return [
    title,
    `  files ${figures(files.size, shapeOf(files))}`,
    `  rooms ${figures(graph.size, shape)}`,
    '',
    'floor',
    ...lines.toReversed(),
    ...shape.circles.map((names) => `circle: ${names.join(' ')}`),
    ...shape.upward.map(([from, to]) => `not downward: ${from} -> ${to}`),
    '',
  ].join('\n');
}

const figures = (nodes: number, { floors, arrows, upward, circles }: Shape): string =>
  `${nodes}, floors ${floors.length}, arrows ${arrows}, not downward ${upward.length}, circles ${circles.length}`;

/** The graph as Graphviz draws it: importers above, arrows that do not lead down in red. */
export async function draw(graph: Graph): Promise<string> {
  const shape = shapeOf(graph);
  const upward = new Set(shape.upward.map((arrow) => arrow.join()));
  const viz = await instance();
  return viz.renderString(
    {
      graphAttributes: { rankdir: 'TB', ranksep: 0.6 },
      nodeAttributes: { shape: 'box', style: 'rounded', fontname: 'sans-serif', fontsize: 11, height: 0.3 },
      edgeAttributes: { color: '#888888', arrowsize: 0.6 },
      nodes: [...graph.keys()].map((name) => ({ name })),
      edges: [...graph].flatMap(([tail, targets]) =>
        [...targets].map((head) => ({
          tail,
          head,
          attributes: upward.has([tail, head].join()) ? { color: 'red', constraint: false } : {},
        })),
      ),
      subgraphs: shape.floors.map((names) => ({
        graphAttributes: { rank: 'same' },
        nodes: names.map((name) => ({ name })),
      })),
    },
    { format: 'svg' },
  );
}

if (import.meta.main) {
  const { positionals, values } = parseArgs({ allowPositionals: true, options: { svg: { type: 'string' } } });
  const all = await readImports(repo);
  const [layer] = positionals;
  const files = group(all, layer === undefined ? (file) => file : fileOf(layer));
  const graph = group(all, layer === undefined ? layerOf : roomOf(layer));
  if (graph.size === 0) {
    process.stderr.write(`Cannot draw src/${layer}: no such layer\nusage: npm run graph -- [LAYER] [--svg FILE]\n`);
    process.exit(2);
  }
  process.stdout.write(describe(layer === undefined ? 'src' : `src/${layer}`, graph, files));
  if (values.svg !== undefined) await writeFile(values.svg, await draw(graph));
}
