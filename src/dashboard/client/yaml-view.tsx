import * as v from 'valibot';
import type { PodDetails } from '#api/pods.ts';
import { call } from './api.ts';
import { podPath } from './pod-name.ts';
import { usePoll } from './poll.ts';
import { Loading, Problem } from './ui.tsx';
import { yamlText } from './yaml-text.ts';

/** The Pod as a file would have it, with all defaults and its present limits. */
export function YamlView({ pod }: { readonly pod: PodDetails }) {
  const path = `/v1${podPath(pod)}/manifest`;
  const { data, error } = usePoll(path, 10_000, (signal) => call('GET', path, v.unknown(), { signal }));
  if (data === undefined) return error === undefined ? <Loading /> : <Problem error={error} />;
  return (
    <>
      <Problem error={error} />
      <pre class="text" tabIndex={0} role="region" aria-label="YAML of the pod">
        {yamlText(data)}
      </pre>
    </>
  );
}
