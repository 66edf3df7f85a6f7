import * as v from 'valibot';

/** The state of one thing that needs patches. `unknown`: the check failed, see `detail`; never treated as `newest`. */
export const updateFindingSchema = v.object({
  subject: v.picklist([
    'security archive',
    'QEMU',
    'guest kernel',
    'crun',
    'build root',
    'host packages',
    'Node',
    'npm packages',
    'npm advisories',
  ]),
  verdict: v.picklist(['newest', 'older', 'missing', 'unknown']),
  detail: v.pipe(v.string(), v.maxLength(4096)),
  fix: v.optional(v.pipe(v.string(), v.maxLength(1024))),
});
export type UpdateFinding = Readonly<v.InferOutput<typeof updateFindingSchema>>;

export const updateReportSchema = v.pipe(v.array(updateFindingSchema), v.maxLength(16));

/** Input of the process that looks for updates (`updates-process.ts`). */
export const updateRequestSchema = v.object({
  root: v.string(),
  repo: v.string(),
  mirror: v.optional(v.string()),
  npmEnv: v.record(v.string(), v.string()),
});
export type UpdateRequest = Readonly<v.InferOutput<typeof updateRequestSchema>>;

/** A package with a newer version. */
export interface Outdated {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly isSecurity: boolean;
}

/** Maximum number of packages that are named; the rest are counted. */
const maxNamed = 6;

/** Describes them, those of the security archive first. */
export function describeOutdated(outdated: readonly Outdated[]): string {
  const sorted = outdated.toSorted((one, other) => Number(other.isSecurity) - Number(one.isSecurity));
  const named = sorted
    .slice(0, maxNamed)
    .map(({ name, from, to, isSecurity }) => `${name} ${from} -> ${to}${isSecurity ? ' (security)' : ''}`);
  const rest = sorted.length - named.length;
  return `older than the archives have: ${named.join(', ')}${rest > 0 ? `, and ${rest} more` : ''}`;
}
