import type { NodeEvent, PodEventJson } from '#api/pods.ts';
import { ageText, clockText } from './format.ts';
import { podPath } from './pod-name.ts';
import { Words } from './ui.tsx';

type ShownEvent = PodEventJson & Partial<Pick<NodeEvent, 'namespace' | 'name'>>;

/** Events, the newest first, each with its fix. Those of several pods name theirs. */
export function Events({ events }: { readonly events: readonly ShownEvent[] }) {
  if (events.length === 0) return <p class="empty">None.</p>;
  return (
    <ol class="events">
      {events.toReversed().map((event, at) => (
        <li key={events.length - at} class={event.type === 'Warning' ? 'warning' : ''}>
          <time dateTime={event.at} title={`${ageText(event.at)} ago`}>
            {clockText(event.at)}
          </time>
          <span class="what">
            <strong>{event.reason}</strong>
            {event.namespace === undefined || event.name === undefined ? null : (
              <a href={podPath({ namespace: event.namespace, name: event.name })}>
                {event.namespace}/{event.name}
              </a>
            )}{' '}
            {event.container === undefined ? '' : `${event.container}: `}
            {event.message}
            {event.fix === undefined ? null : (
              <span class="fix">
                <Words text={event.fix} />
              </span>
            )}
          </span>
        </li>
      ))}
    </ol>
  );
}
