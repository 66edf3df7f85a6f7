import * as v from 'valibot';

/**
 * A recorded terminal in the format asciicast v2 (docs.asciinema.org/manual/asciicast/v2): a header, then one event a
 * line: seconds since the start, `o` for output, the text.
 */
export interface Cast {
  readonly columns: number;
  readonly rows: number;
  readonly outputs: readonly Output[];
}

export interface Output {
  readonly atMs: number;
  readonly text: string;
}

const headerSchema = v.object({ version: v.literal(2), width: v.number(), height: v.number() });
const eventSchema = v.tuple([v.number(), v.literal('o'), v.string()]);

export function parseCast(text: string): Cast {
  const [first = '', ...lines] = text.trimEnd().split('\n');
  const { width, height } = v.parse(headerSchema, JSON.parse(first));
  const outputs = lines.map((line) => {
    const [seconds, , output] = v.parse(eventSchema, JSON.parse(line));
    return { atMs: Math.round(seconds * 1000), text: output };
  });
  return { columns: width, rows: height, outputs };
}

export function formatCast({ columns, rows, outputs }: Cast): string {
  const lines = [
    { version: 2, width: columns, height: rows },
    ...outputs.map(({ atMs, text }) => [atMs / 1000, 'o', text]),
  ];
  return lines.map((line) => `${JSON.stringify(line)}\n`).join('');
}
