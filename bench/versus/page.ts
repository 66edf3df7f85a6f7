import { page, table as rowsOf } from '../../tools/reference/markdown.ts';
import { judge, shownSpread, type Verdict } from './judge.ts';
import { type MeasuredRow, type Result, spreadOf } from './result.ts';
import { contestants, rowNames, type RowText, table } from './table.ts';

/** Returns `docs/performance.md`: the results of a run, beside their targets. */
export async function performancePage(result: Result): Promise<string> {
  const { machine, versions, rounds, measuredAt, rows } = result;
  const missing = rowNames.filter((name) => rows[name] === undefined);
  const failed = Object.entries(rows).flatMap(([name, { failure }]) =>
    failure === undefined ? [] : [`- \`${name}\` failed: ${failure.replaceAll('\n', ' ')}`],
  );
  const verdicts = judge(result);
  return await page(
    'Performance beside other runtimes',
    '`docs/performance.json` and `bench/versus/table.ts`',
    '`npm run bench -- versus --json docs/performance.json` measures PodVM and its peers in one run, in turn: in each ' +
      'round every one of them once, and another one first. It builds the peers by itself. `--rows pod,exec` chooses ' +
      'rows, `--rounds 2` is a quick look, and `--resume` keeps the rows that the file has already, of the same versions ' +
      'and machine. CI has no quiet machine: there, `src/sandbox/start/round-trips.test.ts` compares the calls and bytes ' +
      'that a pod waits for with budgets, and `npm run bench -- regression` compares processor time and memory with the ' +
      'commit that a change begins at, round by round in one run.',
    `**Measured** on ${measuredAt.slice(0, 10)}, in ${rounds} ${rounds === 1 ? 'round' : 'rounds'} (some rows in fewer), on ${machine.cores} × ${machine.processor} with ` +
      `${Math.round(machine.memoryMiB / 1024)} GiB of memory and Linux ${machine.kernel}; PodVM's machines ran with ` +
      `${machine.accelerator === 'kvm' ? 'KVM' : 'software emulation (TCG)'}. ` +
      otherWorkOf(machine),
    `Versions: ${Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}.`,
    'Figures are medians, with the first and third quartile in parentheses. A ratio is that of two medians; its quartiles ' +
      'are those of the ratios of single rounds.',
    '## Targets',
    '![Ratios of PodVM to a peer or to another figure of its own, with their targets](performance.svg)',
    verdicts.length === 0 ? 'None of the measured rows has one.' : targetsOf(verdicts),
    ...failed,
    ...(missing.length === 0 ? [] : [`Not measured in this run: ${missing.map((name) => `\`${name}\``).join(', ')}.`]),
    ...rowNames.flatMap((name) => {
      const row = rows[name];
      return row === undefined ? [] : sectionOf(name, table[name], row, result);
    }),
  );
}

/** Below these the page calls the machine idle: share of the processors' time, load average. */
const idle = { busy: 0.1, load: 0.5 } as const;

function otherWorkOf({ busyBefore, loadBefore = 0 }: Result['machine']): string {
  if (busyBefore === undefined ? loadBefore < idle.load : busyBefore < idle.busy)
    return 'The machine was idle otherwise.';
  const what =
    busyBefore === undefined
      ? `its load average was ${loadBefore.toFixed(1)} before`
      : `its processors were busy ${Math.round(100 * busyBefore)} % of the time before`;
  return `**The machine had other work**: ${what}. These figures show that the rows run, and no more.`;
}

function targetsOf(verdicts: readonly Verdict[]): string {
  const lines = verdicts.map(({ what, who, measured, target, isMet }) => [
    what,
    who,
    measured,
    target,
    isMet === undefined ? '**not measured**' : isMet ? 'met' : '**missed**',
  ]);
  return rowsOf(['figure', 'of', 'measured', 'target', ''], lines);
}

function sectionOf(name: string, text: RowText, row: MeasuredRow, { density }: Result): readonly string[] {
  const head = [`figure`, ...text.peers.map((peer) => contestants[peer])];
  const lines = Object.entries(text.metrics).map(([key, metric]) => [
    `${metric.text}, ${metric.unit}`,
    ...text.peers.map((peer) => cell(row.values[key]?.[peer] ?? [])),
  ]);
  const counts = text.peers.map((peer) => Object.values(row.values)[0]?.[peer]?.length ?? 0);
  const rounds = Math.min(...counts);
  const pods = name === 'density' ? ` Here: ${density} pods.` : '';
  const note = `${text.about}${pods} Row \`${name}\`, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}, ${row.seconds} s.`;
  return [`## ${text.title}`, note, rowsOf(head, lines)];
}

function cell(values: readonly number[]): string {
  const spread = spreadOf(values);
  return spread === undefined ? '–' : shownSpread(spread);
}
