import { podDescriptionSchema } from '#api/description.ts';
import { podDetailsSchema, type PodDetails } from '#api/pods.ts';
import { refusalOf, type PodAction } from '#api/pod-actions.ts';
import { Actions } from './actions.tsx';
import { call } from './api.ts';
import { FilesView } from './files-view.tsx';
import { ConsoleView, LogsView } from './logs-view.tsx';
import { podPath } from './pod-name.ts';
import { usePoll } from './poll.ts';
import { PodOverview } from './pod-overview.tsx';
import { PortsView } from './ports-view.tsx';
import { type Route, withQuery } from './route.ts';
import { TerminalView } from './terminal-view.tsx';
import { Loading, Problem, Status, statusOf } from './ui.tsx';
import { ageText } from './format.ts';
import { YamlView } from './yaml-view.tsx';

interface TabRow {
  readonly title: string;
  readonly needs?: PodAction;
}

/** Parts of a pod's page, and the action that each needs. */
const tabs = {
  overview: { title: 'Overview' },
  logs: { title: 'Logs', needs: 'logs' },
  terminal: { title: 'Terminal', needs: 'exec' },
  console: { title: 'Console', needs: 'console' },
  files: { title: 'Files', needs: 'readFiles' },
  ports: { title: 'Ports', needs: 'portForward' },
  yaml: { title: 'YAML', needs: 'manifest' },
  details: { title: 'Details' },
} as const satisfies Record<string, TabRow>;
type Tab = keyof typeof tabs;
const tabNames = Object.keys(tabs) as readonly Tab[]; // SAFE: the keys of that very table

export function PodPage({ route: { path, query } }: { readonly route: Route }) {
  const tab = tabNames.find((name) => name === query.get('tab')) ?? 'overview';
  const details = usePoll(path, 2000, (signal) => call('GET', `/v1${path}`, podDetailsSchema, { signal }));
  const pod = details.data;
  if (pod === undefined)
    return <main>{details.error === undefined ? <Loading /> : <Problem error={details.error} />}</main>;
  return (
    <main>
      <div class="head">
        <h1>
          <span class="faint">{pod.namespace}/</span>
          {pod.name}
        </h1>
        <Status text={statusOf(pod)} />
        <span class="faint">
          {pod.endedAt === undefined ? `${ageText(pod.createdAt)} old` : `ended ${ageText(pod.endedAt)} ago`}, of{' '}
          {pod.owner ?? 'podvm'}
        </span>
        <Actions pod={pod} onDone={details.refresh} />
      </div>
      <Problem error={details.error} />
      <nav class="tabs" aria-label="Parts of the page">
        {tabNames.map((name) => (
          <a
            key={name}
            href={withQuery({ tab: name === 'overview' ? '' : name })}
            aria-current={name === tab ? 'page' : undefined}
          >
            {tabs[name].title}
          </a>
        ))}
      </nav>
      <TabView tab={tab} pod={pod} query={query} key={`${path} ${tab} ${pod.createdAt}`} />
    </main>
  );
}

interface TabProps {
  readonly tab: Tab;
  readonly pod: PodDetails;
  readonly query: URLSearchParams;
}

function TabView({ tab, pod, query }: TabProps) {
  const { needs }: TabRow = tabs[tab];
  const refusal = needs === undefined ? undefined : refusalOf(needs, pod);
  if (refusal !== undefined) return <Problem error={refusal} />;
  switch (tab) {
    case 'overview':
      return <Overview pod={pod} />;
    case 'logs':
      return <LogsView pod={pod} />;
    case 'terminal':
      return <TerminalView pod={pod} />;
    case 'console':
      return <ConsoleView pod={pod} />;
    case 'files':
      return <FilesView pod={pod} query={query} />;
    case 'ports':
      return <PortsView pod={pod} />;
    case 'yaml':
      return <YamlView pod={pod} />;
    case 'details':
      return (
        <pre class="text" tabIndex={0} role="region" aria-label="Details of the pod">
          {JSON.stringify(pod, null, 2)}
        </pre>
      );
  }
}

function Overview({ pod }: { readonly pod: PodDetails }) {
  const described = usePoll(`description ${podPath(pod)}`, 2000, (signal) =>
    call('GET', `/v1${podPath(pod)}/description`, podDescriptionSchema, { signal }),
  );
  if (described.data === undefined)
    return described.error === undefined ? <Loading /> : <Problem error={described.error} />;
  return (
    <>
      <Problem error={described.error} />
      <PodOverview pod={pod} described={described.data} />
    </>
  );
}
