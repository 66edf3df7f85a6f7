/*
 * The caller: what `podvm run` of a release starts instead of Node if a node of this release serves (`podvm`, the shell
 * script). It hands its command line to the node, which runs the command in its own process (`serve-command.ts`), prints what
 * comes back, passes on signals and ends with the command's exit code. It knows no command: whatever it does not understand,
 * and whatever the node does not take, it leaves to the program itself, on which it executes.
 *
 *   caller SOCKET KEY COUNT PROGRAM [ARGUMENT...] WORD...
 *
 * KEY names the build of the program; the node takes commands of its own build only. The last COUNT words are the command's.
 * The connection is a WebSocket (RFC 6455). Frames of a client must be masked; the mask is 0, since no proxy is between.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* First bytes of the node's messages, as in `serve-command.ts`. */
enum { refused = 0, to_stdout = 1, to_stderr = 2, ended = 3, taken = 4 };

enum { max_request = 1 << 20, failure = 125 };

extern char **environ;

static char **program;
static int connection = -1;
static unsigned char buffer[1 << 16];
static size_t begin, end;

/* Becomes the program, which then does everything itself. */
static _Noreturn void run_here(void)
{
	execv(program[0], program);
	fprintf(stderr, "podvm: Cannot start %s: %s\n", program[0], strerror(errno));
	_exit(failure);
}

static _Noreturn void lost(void)
{
	static const char said[] =
		"podvm: Cannot follow the command any longer: the podvm that served it has ended\n"
		"  fix: See `podvm ps -a` for its pod: pods of a node outlive it.\n";
	if (write(2, said, sizeof said - 1) < 0)
		_exit(failure);
	_exit(failure);
}

/* Reads until `count` bytes are there. False: the connection has ended. */
static bool fill(size_t count)
{
	if (begin + count > sizeof buffer) {
		memmove(buffer, buffer + begin, end - begin);
		end -= begin;
		begin = 0;
	}
	while (end - begin < count) {
		ssize_t got = read(connection, buffer + end, sizeof buffer - end);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		end += (size_t)got;
	}
	return true;
}

/* Sends one byte, whole or not at all; also from a handler of a signal. */
static void tell(int number)
{
	unsigned char frame[] = { 0x82, 0x81, 0, 0, 0, 0, (unsigned char)number };
	int before = errno;
	(void)!send(connection, frame, sizeof frame, MSG_NOSIGNAL | MSG_DONTWAIT);
	errno = before;
}

/* Prints, and waits until there is room. A reader that is gone counts as the signal that it would have sent. */
static void print(int to, const unsigned char *bytes, size_t count)
{
	static bool is_gone[3];
	while (count > 0 && !is_gone[to]) {
		ssize_t done = write(to, bytes, count);
		if (done >= 0) {
			bytes += done;
			count -= (size_t)done;
		} else if (errno == EAGAIN) {
			struct pollfd room = { .fd = to, .events = POLLOUT };
			poll(&room, 1, -1);
		} else if (errno != EINTR) {
			is_gone[to] = true;
			if (to == 1)
				tell(SIGPIPE);
		}
	}
}

static bool send_all(const char *bytes, size_t count)
{
	while (count > 0) {
		ssize_t done = send(connection, bytes, count, MSG_NOSIGNAL);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return false;
		bytes += done;
		count -= (size_t)done;
	}
	return true;
}

static bool open_connection(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path)
		return false;
	memcpy(address.sun_path, path, strlen(path) + 1);
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof address) == 0;
}

/* As Node: no descriptor of a closed standard stream may become that of the connection. False: there is no other. */
static bool open_missing_streams(void)
{
	for (int stream = 0; stream <= 2; stream++)
		if (fcntl(stream, F_GETFD) < 0 && open("/dev/null", O_RDWR) != stream)
			return false;
	return true;
}

static bool is_file(const char *word)
{
	struct stat found;
	return stat(word, &found) == 0 && !S_ISDIR(found.st_mode);
}

/* Appends text with its final NUL. */
static bool add(char *request, size_t *at, const char *text)
{
	size_t size = strlen(text) + 1;
	if (*at + size > max_request)
		return false;
	memcpy(request + *at, text, size);
	*at += size;
	return true;
}

/* Text of the request: see `command-request.ts`. Returns its length, or 0 if it is too large. */
static size_t write_request(char *request, const char *key, int count, char **words)
{
	char space[64];
	size_t at = 0;
	ssize_t length = readlink("/proc/self/ns/mnt", space, sizeof space - 1);
	if (length < 0)
		return 0;
	space[length] = '\0';
	if (!add(request, &at, key) || !add(request, &at, space) || at + (size_t)count + 3 > max_request)
		return 0;
	request[at++] = isatty(1) ? '1' : '0';
	request[at++] = isatty(2) ? '1' : '0';
	for (int word = 0; word < count; word++)
		request[at++] = is_file(words[word]) ? '1' : '0';
	request[at++] = '\0';
	for (int word = 0; word < count; word++)
		if (!add(request, &at, words[word]))
			return 0;
	for (char **variable = environ; *variable != NULL; variable++)
		if (!add(request, &at, *variable))
			return 0;
	return at;
}

/* Sends the request without waiting for the answer to the handshake, and reads that. */
static bool ask(const char *key, int count, char **words)
{
	static const char handshake[] =
		"GET /v1/command HTTP/1.1\r\nHost: podvm\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: cG9kdm0tY29tbWFuZC0wMQ==\r\n\r\n";
	enum { head = sizeof handshake - 1, frame = 14 };
	char *all = malloc(head + frame + max_request);
	size_t size = all == NULL ? 0 : write_request(all + head + frame, key, count, words);
	if (size == 0)
		return false;
	memcpy(all, handshake, head);
	memset(all + head, 0, frame);
	all[head] = (char)0x82;
	all[head + 1] = (char)(0x80 | 127);
	for (int byte = 0; byte < 8; byte++)
		all[head + 2 + byte] = (char)(size >> (56 - 8 * byte));
	bool is_sent = send_all(all, head + frame + size);
	free(all);
	if (!is_sent || !fill(12) || memcmp(buffer, "HTTP/1.1 101", 12) != 0)
		return false;
	for (size_t seen = 4;; seen++) {
		if (seen > sizeof buffer || !fill(seen))
			return false;
		if (memcmp(buffer + begin + seen - 4, "\r\n\r\n", 4) != 0)
			continue;
		begin += seen;
		return true;
	}
}

/* Reads the head of the next message with at least one byte, and that. Returns the rest of its length, or -1 at the end. */
static long long next_message(int *kind)
{
	if (!fill(2) || buffer[begin] != 0x82)
		return -1;
	unsigned char size = buffer[begin + 1];
	size_t more = size == 126 ? 2 : size == 127 ? 8 : 0;
	unsigned long long length = size;
	if (size > 127 || !fill(2 + more))
		return -1;
	if (more > 0)
		length = 0;
	for (size_t byte = 0; byte < more; byte++)
		length = length << 8 | buffer[begin + 2 + byte];
	begin += 2 + more;
	if (length == 0 || length > 1ULL << 40 || !fill(1))
		return -1;
	*kind = buffer[begin++];
	return (long long)length - 1;
}

static void pass_signals_on(void)
{
	static const int all[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	signal(SIGPIPE, SIG_IGN);
	for (size_t each = 0; each < sizeof all / sizeof *all; each++) {
		struct sigaction told = { .sa_handler = tell, .sa_flags = SA_RESTART }, before;
		if (sigaction(all[each], NULL, &before) == 0 && all[each] == SIGHUP && before.sa_handler == SIG_IGN)
			continue; /* nohup */
		sigaction(all[each], &told, NULL);
	}
}

static _Noreturn void follow(void)
{
	bool is_taken = false;
	for (;;) {
		int kind;
		long long left = next_message(&kind);
		if (!is_taken && (left < 0 || kind == refused || kind > taken))
			run_here();
		if (left < 0)
			lost();
		if (!is_taken)
			pass_signals_on();
		is_taken = true;
		if (kind == ended)
			_exit(left == 1 && fill(1) ? buffer[begin] : failure);
		while (left > 0) {
			if (!fill(1))
				lost();
			size_t part = end - begin;
			if (part > (unsigned long long)left)
				part = (size_t)left;
			if (kind == to_stdout || kind == to_stderr)
				print(kind, buffer + begin, part);
			begin += part;
			left -= (long long)part;
		}
	}
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return failure;
	int count = atoi(argv[3]);
	program = argv + 4;
	if (count < 1 || count > argc - 5)
		run_here();
	if (!open_missing_streams() || !open_connection(argv[1]) || !ask(argv[2], count, argv + argc - count))
		run_here();
	follow();
}
