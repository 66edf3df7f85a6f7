import { useEffect, useRef, useState } from 'preact/hooks';
import type { PodDetails } from '#api/pods.ts';
import { CallError } from './api.ts';
import {
  type FileEntry,
  listCommand,
  maxListingBytes,
  normalPath,
  parentOf,
  parseListing,
  pathIn,
  readCommand,
  textOf,
} from './container-files.ts';
import { ageText, bytesText, plainText } from './format.ts';
import { chosenContainer, ContainerChoice } from './logs-view.tsx';
import { podPath } from './pod-name.ts';
import { asError } from './poll.ts';
import { go, setQuery, withQuery } from './route.ts';
import { type CommandResult, runCommand } from './run-command.ts';
import { Loading, Problem } from './ui.tsx';

/** Most bytes of a file that are shown, and that are downloaded; `podvm cp` copies larger ones. */
const shownBytes = 256 * 1024;
const downloadedBytes = 64 * 1024 * 1024;

/** Files of a container. The address has the container and the path. All names and contents are a guest's. */
export function FilesView({ pod, query }: { readonly pod: PodDetails; readonly query: URLSearchParams }) {
  const named = query.get('container') ?? '';
  const container = pod.containers.some(({ name }) => name === named) ? named : chosenContainer(pod);
  const file = query.get('file');
  const path = normalPath(file ?? query.get('path') ?? '/');
  const site = { podPath: podPath(pod), container };
  const key = `${container} ${path}`;
  return (
    <section class="stream" aria-label="Files">
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          const wanted = new FormData(event.currentTarget).get('path');
          go(withQuery({ file: '', path: normalPath(typeof wanted === 'string' ? wanted : '/') }));
        }}
      >
        <ContainerChoice pod={pod} value={container} onChange={(name) => setQuery({ container: name, file: '' })} />
        <label>
          Path <input class="code" name="path" defaultValue={path} key={path} required />
        </label>
        <button type="submit">Open</button>
      </form>
      {file === null ? <Directory site={site} path={path} key={key} /> : <File site={site} path={path} key={key} />}
    </section>
  );
}

interface Site {
  readonly podPath: string;
  readonly container: string;
}

interface Place {
  readonly site: Site;
  readonly path: string;
}

/** Runs a command once; its result, or why it failed. */
function useResult(site: Site, command: readonly string[], maxBytes: number) {
  const [state, setState] = useState<{ readonly result?: CommandResult; readonly error?: CallError }>({});
  useEffect(() => {
    const stop = new AbortController();
    runCommand(site, command, maxBytes, stop.signal)
      .then((result) => setState(result.exitCode === 0 ? { result } : { error: refusalOf(result) }))
      .catch((error: unknown) => {
        if (!stop.signal.aborted) setState({ error: asError(error) });
      });
    return () => stop.abort();
  }, []);
  return state;
}

function refusalOf({ exitCode, stderr }: CommandResult): CallError {
  if (exitCode === 126 || exitCode === 127)
    return new CallError(
      'failedPrecondition',
      'Cannot read files: the container lacks `sh` or `head`',
      'The page reads files with programs of the container. Mount a volume to reach files of such an image.',
    );
  const said = plainText(stderr).trim().slice(0, 300);
  return new CallError('failedPrecondition', `Cannot read it: ${said === '' ? `exit code ${exitCode}` : said}`);
}

function Directory({ site, path }: Place) {
  const { result, error } = useResult(site, listCommand(path), maxListingBytes);
  const listed = result === undefined ? undefined : parseListing(result.stdout);
  return (
    <>
      <Trail path={path} />
      <Problem error={error} />
      {result === undefined && error === undefined ? <Loading /> : null}
      {listed === undefined ? null : (
        <>
          <p class="faint" role="status">
            {listed.isCut || result?.isCut === true
              ? `The first ${listed.entries.length} of more`
              : listed.entries.length}{' '}
            {listed.entries.length === 1 ? 'entry' : 'entries'}
          </p>
          <table class="list files">
            <thead>
              <tr>
                <th scope="col" class="grow">
                  Name
                </th>
                <th scope="col" class="number">
                  Size
                </th>
                <th scope="col" class="number mid">
                  Changed
                </th>
                <th scope="col" class="mid">
                  Mode
                </th>
              </tr>
            </thead>
            <tbody>
              {listed.entries.map((entry, at) => (
                <Row key={at} path={path} entry={entry} />
              ))}
            </tbody>
          </table>
        </>
      )}
    </>
  );
}

function Row({
  path,
  entry: { name, kind, isNamable, details },
}: {
  readonly path: string;
  readonly entry: FileEntry;
}) {
  const at = pathIn(path, name);
  const shown = `${plainText(name).replaceAll('\n', '·')}${kind === 'directory' ? '/' : ''}`;
  const to = kind === 'directory' ? withQuery({ path: at }) : withQuery({ file: at });
  return (
    <tr>
      <td class="grow code">{kind === 'other' || !isNamable ? shown : <a href={to}>{shown}</a>}</td>
      <td class="number">{kind === 'directory' ? '' : bytesText(details?.sizeBytes)}</td>
      <td class="number mid">{details === undefined ? '–' : ageText(details.changedSeconds * 1000)}</td>
      <td class="mid code">{details?.mode ?? '–'}</td>
    </tr>
  );
}

/** The path, of which each directory is a link. */
function Trail({ path }: { readonly path: string }) {
  const parts = path.split('/').filter(Boolean);
  return (
    <nav class="trail code" aria-label="Path">
      {['', ...parts].map((part, at) => (
        <a key={at} href={withQuery({ file: '', path: `/${parts.slice(0, at).join('/')}` })}>
          {plainText(part).replaceAll('\n', '·')}/
        </a>
      ))}
    </nav>
  );
}

function File({ site, path }: Place) {
  const { result, error } = useResult(site, readCommand(path, shownBytes + 1), shownBytes);
  const text = result === undefined ? undefined : textOf(result.stdout);
  return (
    <>
      <Trail path={parentOf(path)} />
      <div class="toolbar">
        <strong class="code">{plainText(path).replaceAll('\n', '·')}</strong>
        <Download site={site} path={path} />
        <span class="faint count" role="status">
          {result === undefined
            ? ''
            : result.isCut
              ? `The first ${bytesText(shownBytes)}`
              : bytesText(result.stdout.length)}
        </span>
      </div>
      <Problem error={error} />
      {result === undefined && error === undefined ? <Loading /> : null}
      {result !== undefined && text === undefined ? <p class="empty">This file is not text.</p> : null}
      {text === undefined ? null : (
        <pre class="text" tabIndex={0} role="region" aria-label="Content of the file">
          {plainText(text)}
        </pre>
      )}
    </>
  );
}

function Download({ site, path }: Place) {
  const [state, setState] = useState<{ readonly isRunning?: boolean; readonly error?: CallError }>({});
  const left = useRef(new AbortController());
  useEffect(() => () => left.current.abort(), []);
  const start = async () => {
    const { signal } = left.current;
    setState({ isRunning: true });
    try {
      const result = await runCommand(site, readCommand(path, downloadedBytes + 1), downloadedBytes, signal);
      if (result.exitCode !== 0) throw refusalOf(result);
      if (result.isCut) throw tooLarge();
      save(result.stdout, plainText(path.split('/').at(-1) ?? '').replaceAll(/[\n\t]/g, '·'));
      setState({});
    } catch (error) {
      if (!signal.aborted) setState({ error: asError(error) });
    }
  };
  return (
    <>
      <button
        type="button"
        aria-disabled={state.isRunning === true}
        onClick={() => state.isRunning !== true && void start()}
      >
        {state.isRunning === true ? 'Download…' : 'Download'}
      </button>
      <Problem error={state.error} />
    </>
  );
}

const tooLarge = () =>
  new CallError(
    'exhausted',
    `Cannot download the file: it has more than ${bytesText(downloadedBytes)}`,
    'Copy it with `podvm cp`.',
  );

/** Has the browser save bytes as a file. It is never shown, whatever its content is. */
function save(bytes: Uint8Array<ArrayBuffer>, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], { type: 'application/octet-stream' }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
