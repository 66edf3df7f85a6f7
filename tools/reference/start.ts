import { admissionSteps, madeForPod, startSteps } from '../../src/sandbox/start/pod-steps.ts';
import { machineSteps } from '../../src/sandbox/start/machine-steps.ts';
import { spareSteps } from '../../src/sandbox/start/spare-steps.ts';
import { page, table } from './markdown.ts';

interface Row {
  readonly name: string;
  readonly what: string;
  readonly needs: readonly string[];
  readonly until?: string;
  readonly undo?: unknown;
}

export async function startPage(): Promise<string> {
  const steps: Record<string, Row> = { ...spareSteps, ...startSteps };
  const keys = [...Object.keys(startSteps), ...Object.keys(spareSteps).filter((key) => !(key in startSteps))];
  const rows = keys.flatMap((key) => {
    const row = steps[key];
    if (row === undefined) return [];
    const needs = directNeeds(row, steps).map((need) => steps[need]?.name ?? need);
    return [[row.name, needs.join(', '), row.what, whenOf(key), undoneOf(row)]];
  });
  return await page(
    'The steps of a start',
    '`src/sandbox/start/pod-steps.ts`, `machine-steps.ts` and `spare-steps.ts`',
    'What happens when a sandbox starts. `runSteps()` in `src/sandbox/start/run-steps.ts` starts each step as soon as what ' +
      'it needs is there, and times it under its name: `podvm inspect` and the log show these times. When a step fails, ' +
      'or the machine dies, the other steps are told to stop and waited for, and what was acquired is undone in reverse ' +
      'order (`src/sandbox/state/holdings.ts`). What cannot be undone when a sandbox ends makes it `failed`, and `remove` tries ' +
      'it again.',
    'A start may begin in the middle: what is done already is given to the runner with its results, as with a _spare_, a ' +
      'machine of the pool.',
    table(['step', 'needs', 'what is there when it is done', 'runs', 'undone'], rows),
  );
}

/** Returns the needs of the row that none of its other needs implies. */
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
  if (until === 'started') return 'at the end of the start';
  return `when the sandbox ${until === 'ended' ? 'has ended' : 'is removed'}`;
}
