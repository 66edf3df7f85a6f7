import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format, type FormatConfig } from 'oxfmt';
import { admissionSteps, madeForPod, startSteps } from '../src/sandbox/start/pod-steps.ts';
import { machineSteps } from '../src/sandbox/start/machine-steps.ts';
import { spareSteps } from '../src/sandbox/start/spare-steps.ts';

/** The page that has the table of a start's steps, between two marks. */
export const startPagePath = join(import.meta.dirname, '../docs/start.md');

const marks = ['<!-- start steps: printed by `npm run steps` -->', '<!-- end of start steps -->'] as const;

interface Row {
  readonly name: string;
  readonly what: string;
  readonly needs: readonly string[];
  readonly until?: string;
  readonly undo?: unknown;
}

/** The page with the table as the steps are now. */
export async function startPage(): Promise<string> {
  const text = await readFile(startPagePath, 'utf8');
  const [from, to] = marks.map((mark) => text.indexOf(mark));
  if (from === undefined || to === undefined || from < 0 || to < from) {
    throw new Error(`Cannot print the steps of a start: ${startPagePath} lacks ${marks.join(' or ')}`);
  }
  const page = [text.slice(0, from), marks[0], '\n\n', startTable(), '\n', text.slice(to)].join('');
  const options = JSON.parse(await readFile(join(import.meta.dirname, '../.oxfmtrc.json'), 'utf8')) as FormatConfig; // SAFE: the formatter's own file
  const { code, errors } = await format('start.md', page, options);
  if (errors.length > 0) throw new Error(`Cannot format ${startPagePath}: ${errors[0]?.message}`);
  return code;
}

function startTable(): string {
  const steps: Record<string, Row> = { ...spareSteps, ...startSteps };
  const keys = [...Object.keys(startSteps), ...Object.keys(spareSteps).filter((key) => !(key in startSteps))];
  const rows = keys.flatMap((key) => {
    const row = steps[key];
    if (row === undefined) return [];
    const needs = directNeeds(row, steps).map((need) => steps[need]?.name ?? need);
    return [[row.name, needs.join(', '), row.what, whenOf(key), undoneOf(row)]];
  });
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |\n`;
  const head = ['step', 'needs', 'what is there when it is done', 'runs', 'undone'];
  return [head, head.map(() => '---'), ...rows].map(line).join('');
}

/** What no other need of the row needs already. */
function directNeeds({ needs }: Row, steps: Record<string, Row>): readonly string[] {
  const allOf = (key: string): readonly string[] => (steps[key]?.needs ?? []).flatMap((need) => [need, ...allOf(need)]);
  const implied = new Set(needs.flatMap(allOf));
  return needs.filter((need) => !implied.has(need));
}

function whenOf(key: string): string {
  if (key in admissionSteps) return 'always, before the pool is asked';
  if (key in madeForPod) return 'if a spare is taken';
  if (key in machineSteps) return 'unless a spare is taken; for the pool';
  return key in spareSteps ? 'for the pool' : 'always';
}

function undoneOf({ undo, until = 'ended' }: Row): string {
  if (undo === undefined) return '';
  return until === 'started'
    ? 'at the end of the start'
    : `when the sandbox ${until === 'ended' ? 'has ended' : 'is removed'}`;
}
