import { PodvmError } from '#base/errors.ts';

type Labels = Readonly<Record<string, string>>;
/** Whether labels are selected. */
type Selector = (labels: Labels) => boolean;

const requirement = /^(?:!([\w./-]+)|([\w./-]+)(?:\s*(==|=|!=)\s*([\w.-]*)|\s+(in|notin)\s*\(([^()]*)\))?)$/;

/** Options that choose among namespaces and labels. */
export interface Choice {
  readonly namespace?: string;
  readonly selector?: string;
}

/** Returns whether an item is one that the options choose. Errors: `invalid` for a selector. */
export function chooser({ namespace, selector }: Choice) {
  const hasLabels = selector === undefined ? () => true : parseSelector(selector);
  return (item: { readonly namespace: string; readonly labels?: Readonly<Record<string, string>> | undefined }) =>
    hasLabels(item.labels ?? {}) && (namespace === undefined || item.namespace === namespace);
}

/** Parses `app=web,tier!=db,env in (a, b),debug,!old`, as kubectl does. Errors: `invalid`. */
export function parseSelector(text: string): Selector {
  const tests = text.split(/,(?![^(]*\))/).map((part) => testOf(part.trim(), text));
  return (labels) => tests.every((test) => test(labels));
}

function testOf(part: string, text: string): Selector {
  const [found, absent, key = '', operator, value = '', set, members = ''] = requirement.exec(part) ?? [];
  if (found === undefined) {
    throw new PodvmError('invalid', `Cannot select by labels: ${JSON.stringify(text)} is not a selector`, {
      fix: "Write it in kubectl's syntax: app=web,tier!=db,env in (a,b),debug,!old.",
    });
  }
  if (absent !== undefined) return (labels) => !Object.hasOwn(labels, absent);
  const wanted = set === undefined ? [value] : members.split(',').map((member) => member.trim());
  if (operator === undefined && set === undefined) return (labels) => Object.hasOwn(labels, key);
  const isNegative = operator === '!=' || set === 'notin';
  return (labels) => (Object.hasOwn(labels, key) && wanted.includes(labels[key] ?? '')) !== isNegative;
}
