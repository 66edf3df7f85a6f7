import * as v from 'valibot';
import { imageSummarySchema } from '#api/images.ts';
import { call } from './api.ts';
import { ageText, bytesText } from './format.ts';
import { usePoll } from './poll.ts';
import { type Route, setQuery } from './route.ts';
import { Loading, Problem, Status } from './ui.tsx';

/** Images that the node has. */
export function ImagesPage({ route: { query } }: { readonly route: Route }) {
  const images = usePoll('images', 5000, (signal) =>
    call('GET', '/v1/images', v.array(imageSummarySchema), { signal }),
  );
  const search = query.get('q') ?? '';
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const all = images.data ?? [];
  const shown = all
    .filter(({ id, references, digests }) => {
      const text = [id, ...references, ...digests].join(' ').toLowerCase();
      return words.every((word) => text.includes(word));
    })
    .toSorted((one, other) => (one.references[0] ?? one.id).localeCompare(other.references[0] ?? other.id));
  return (
    <main>
      <div class="head">
        <h1>Images</h1>
        <input
          type="search"
          aria-label="Search images"
          placeholder="Search name, id, digest…"
          value={search}
          onInput={(event) => setQuery({ q: event.currentTarget.value })}
        />
        <span class="faint count" role="status">
          {images.data === undefined
            ? ''
            : `${shown.length} images, ${bytesText(shown.reduce((sum, it) => sum + it.sizeBytes, 0))}`}
        </span>
      </div>
      <Problem error={images.error} />
      {images.data === undefined ? (
        images.error === undefined ? (
          <Loading />
        ) : null
      ) : (
        <table class="list">
          <thead>
            <tr>
              <th scope="col" class="grow">
                Name
              </th>
              <th scope="col" class="mid">
                Id
              </th>
              <th scope="col" class="number">
                Size
              </th>
              <th scope="col" class="number mid">
                Age
              </th>
              <th scope="col" class="mid">
                File
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ id, references, sizeBytes, createdAt, damaged }) => (
              <tr key={id}>
                <td class="grow">
                  {references.length === 0 ? <span class="faint">no name</span> : references.join(', ')}
                </td>
                <td class="mid code">{id.replace(/^sha256:/, '').slice(0, 12)}</td>
                <td class="number">{bytesText(sizeBytes)}</td>
                <td class="number mid">{createdAt === undefined ? '–' : ageText(createdAt)}</td>
                <td class="mid">{damaged === undefined ? 'good' : <Status text={`damaged: ${damaged}`} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </main>
  );
}
