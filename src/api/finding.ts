import * as v from 'valibot';

/** One result of `podvm doctor`. `warn`: it works, but not as well as it could. `skip`: not checked. */
export const findingSchema = v.object({
  name: v.string(),
  status: v.picklist(['ok', 'warn', 'fail', 'skip']),
  detail: v.string(),
  /** What to do about it. */
  fix: v.optional(v.string()),
});
export type Finding = Readonly<v.InferOutput<typeof findingSchema>>;

/** All results, of the host or of one pod; healthy unless one has failed. */
export const diagnosisSchema = v.object({ isHealthy: v.boolean(), findings: v.array(findingSchema) });
export type Diagnosis = Readonly<v.InferOutput<typeof diagnosisSchema>>;

export const diagnosisOf = (findings: readonly Finding[]): Diagnosis => ({
  isHealthy: findings.every(({ status }) => status !== 'fail'),
  findings: [...findings],
});

/** Findings that an operator should know of, the worst first. */
export const troublesOf = ({ findings }: Diagnosis): readonly Finding[] => [
  ...findings.filter(({ status }) => status === 'fail'),
  ...findings.filter(({ status }) => status === 'warn'),
];

/** Formats a diagnosis for a person, a line for each result and one for its fix, or as JSON. */
export function diagnosisText(diagnosis: Diagnosis, isJson: boolean): string {
  if (isJson) return `${JSON.stringify(diagnosis, null, 2)}\n`;
  const width = Math.max(...diagnosis.findings.map(({ name }) => name.length));
  return diagnosis.findings
    .map(
      ({ name, status, detail, fix }) =>
        `${status.padEnd(4)}  ${name.padEnd(width)}  ${detail}${fix === undefined ? '' : `\n${' '.repeat(width + 8)}${fix}`}\n`,
    )
    .join('');
}
