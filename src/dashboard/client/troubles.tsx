import { diagnosisSchema, troublesOf } from '#api/finding.ts';
import { refusalOf } from '#api/pod-actions.ts';
import type { PodDetails } from '#api/pods.ts';
import { call } from './api.ts';
import { podPath } from './pod-name.ts';
import { usePoll } from './poll.ts';
import { Card, Problem, Words } from './ui.tsx';

/** An examination asks the guest, its network and its disks, so it is not repeated as often as figures are read. */
const everyMs = 30_000;

/** What `podvm doctor` finds wrong with a running pod. */
export function Troubles({ pod }: { readonly pod: PodDetails }) {
  const isRunning = refusalOf('examine', pod) === undefined;
  return isRunning && pod.sandbox !== undefined ? <Examined pod={pod} /> : null;
}

function Examined({ pod }: { readonly pod: PodDetails }) {
  const path = `/v1${podPath(pod)}/diagnosis`;
  const { data, error, refresh } = usePoll(path, everyMs, (signal) => call('GET', path, diagnosisSchema, { signal }));
  const troubles = data === undefined ? [] : troublesOf(data);
  return (
    <Card
      title="Troubles"
      wide
      aside={
        <button type="button" onClick={refresh}>
          Examine again
        </button>
      }
    >
      <Problem error={error} />
      {data === undefined && error === undefined ? <p class="faint">The pod is examined…</p> : null}
      {data !== undefined && troubles.length === 0 ? (
        <p class="faint">None: {data.findings.length} checks passed or were left out.</p>
      ) : null}
      {troubles.length === 0 ? null : (
        <ul class="events troubles">
          {troubles.map(({ name, status, detail, fix }, at) => (
            <li key={at} class={status === 'fail' ? 'warning' : ''}>
              <span class={`status ${status === 'fail' ? 'bad' : 'busy'}`}>{name}</span>
              <span class="what">
                {detail}
                {fix === undefined ? null : (
                  <span class="fix">
                    <Words text={fix} />
                  </span>
                )}
              </span>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}
