import type { ComponentChildren } from 'preact';
import type { PodSummary } from '#api/pods.ts';

/** What failed, and the action to take. */
export interface Told {
  readonly message: string;
  readonly fix?: string | undefined;
}

/** A titled part of a page. */
export function Card({
  title,
  children,
  aside,
  wide = false,
}: {
  readonly title: string;
  readonly children: ComponentChildren;
  readonly aside?: ComponentChildren;
  readonly wide?: boolean;
}) {
  return (
    <section class={wide ? 'card wide' : 'card'}>
      <header>
        <h2>{title}</h2>
        {aside}
      </header>
      {children}
    </section>
  );
}

/** Names with values; those without a value are left out. */
export function Facts({ rows }: { readonly rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {rows
        .filter(([, value]) => value !== undefined && value !== '')
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** One figure with its name. */
export function Figure({
  name,
  value,
  note,
  mark,
}: {
  readonly name: string;
  readonly value: string;
  readonly note?: string | undefined;
  /** Class whose colour stands for it. */
  readonly mark?: string;
}) {
  return (
    <div class="figure">
      <span class="name">
        {mark === undefined ? null : <i class={`mark ${mark}`} />}
        {name}
      </span>
      <span class="value">{value}</span>
      {note === undefined ? null : <span class="note">{note}</span>}
    </div>
  );
}

/** Why a call failed, and the action to take. */
export function Problem({ error }: { readonly error: Told | undefined }) {
  if (error === undefined) return null;
  return (
    <div class="problem" role="alert">
      <strong>
        <Words text={error.message} />
      </strong>
      {error.fix === undefined ? null : (
        <p>
          <Words text={error.fix} />
        </p>
      )}
    </div>
  );
}

/** Text in which words between backquotes are commands. */
export function Words({ text }: { readonly text: string }) {
  return <>{text.split('`').map((part, at) => (at % 2 === 1 ? <code>{part}</code> : part))}</>;
}

const tones: Readonly<Record<string, string>> = {
  Running: 'good',
  Pending: 'busy',
  Terminating: 'busy',
  Completed: 'rest',
  Succeeded: 'rest',
  Stopped: 'rest',
};

/** Status of a pod as `podvm ps` prints it. */
export function statusOf({ phase, reason, endedAt, exitCode }: PodSummary): string {
  if (endedAt === undefined) return reason ?? phase;
  return exitCode === 0 ? 'Completed' : `${reason ?? phase} (${exitCode ?? '?'})`;
}

export function Status({ text }: { readonly text: string }) {
  return <span class={`status ${tones[text] ?? 'bad'}`}>{text}</span>;
}

/** Placeholder of a page or a part of it that has not loaded. */
export const Loading = () => <p class="faint">Loading…</p>;
