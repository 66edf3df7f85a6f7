/** One thing that `podvm doctor` says. `warn`: pods run, but not as well as they could. `skip`: it was not looked at. */
export interface Finding {
  readonly name: string;
  readonly status: 'ok' | 'warn' | 'fail' | 'skip';
  readonly detail: string;
  readonly fix?: string;
}
