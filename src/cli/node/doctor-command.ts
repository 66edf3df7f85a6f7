import { diagnosisSchema, diagnosisText } from '#api/finding.ts';
import type { Client } from '../client.ts';
import { type DetailOutput, detailText } from '../terminal/listing.ts';
import { podPath } from '../pods/pod-name.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

/** Prints the results of a pod's examination. Returns the exit code: 1 if one has failed. */
export async function doctorCommand(
  client: Client,
  pod: string,
  form: 'text' | DetailOutput,
  { stdout }: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const diagnosis = await client.get(`${podPath(pod)}/diagnosis`, diagnosisSchema, signal);
  await write(stdout, form === 'text' ? diagnosisText(diagnosis, false) : await detailText(diagnosis, form));
  return diagnosis.isHealthy ? 0 : 1;
}
