/* Values from and to JavaScript. Types and ranges are checked here only. */
#define _GNU_SOURCE
#include "engine.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool take_int(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t *result)
{
    double number;

    /* Takes numbers only: no valueOf runs, so pointers taken before stay valid. */
    if (!JS_IsNumber(value)) {
        JS_ThrowTypeError(ctx, "Cannot take a value: not a number");
        return false;
    }
    if (JS_ToFloat64(ctx, &number, value) < 0) return false;
    if (!(number >= (double)min && number <= (double)max) || number != trunc(number)) {
        JS_ThrowRangeError(ctx, "Cannot take a number: not an integer from %lld to %lld, got %g", (long long)min,
                           (long long)max, number);
        return false;
    }
    *result = (int64_t)number;
    return true;
}

bool take_optional_int(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t absent, int64_t *result)
{
    if (JS_IsUndefined(value)) {
        *result = absent;
        return true;
    }
    return take_int(ctx, value, min, max, result);
}

bool take_fd(JSContext *ctx, JSValueConst value, int *fd)
{
    int64_t number;

    if (!take_int(ctx, value, 0, max_fds - 1, &number)) return false;
    *fd = (int)number;
    return true;
}

const char *take_text(JSContext *ctx, JSValueConst value)
{
    size_t length;
    const char *text;

    if (!JS_IsString(value)) {
        JS_ThrowTypeError(ctx, "Cannot take a value: not a string");
        return NULL;
    }
    text = JS_ToCStringLen(ctx, &length, value);
    if (!text) return NULL;
    if (strlen(text) != length) {
        JS_FreeCString(ctx, text);
        throw_errno(ctx, EINVAL, "take a text with a NUL in it", NULL);
        return NULL;
    }
    return text;
}

bool take_bytes(JSContext *ctx, JSValueConst value, uint8_t **bytes, size_t *length)
{
    size_t offset, size, total, item;
    JSValue buffer = JS_GetTypedArrayBuffer(ctx, value, &offset, &size, &item);
    uint8_t *start;

    if (JS_IsException(buffer)) return false;
    start = JS_GetArrayBuffer(ctx, &total, buffer);
    JS_FreeValue(ctx, buffer); /* the typed array, which the caller holds, keeps it alive */
    if (!start) {
        /* An empty ArrayBuffer has no memory and raises no exception. */
        if (JS_HasException(ctx)) return false;
        total = 0;
    }
    if (item != 1 || offset > total || size > total - offset) {
        JS_ThrowTypeError(ctx, "Cannot take bytes: not a Uint8Array");
        return false;
    }
    *bytes = start ? start + offset : NULL;
    *length = size;
    return true;
}

bool take_slice(JSContext *ctx, JSValueConst value, JSValueConst offset, JSValueConst length, uint8_t **bytes, size_t *size)
{
    int64_t start, count;

    if (!take_bytes(ctx, value, bytes, size)) return false;
    if (!take_optional_int(ctx, offset, 0, (int64_t)*size, 0, &start)) return false;
    if (!take_optional_int(ctx, length, 0, (int64_t)*size - start, (int64_t)*size - start, &count)) return false;
    if (*bytes) *bytes += start;
    *size = (size_t)count;
    return true;
}

static bool take_count(JSContext *ctx, JSValueConst array, int64_t max, int64_t *count)
{
    JSValue length;
    bool ok;

    if (JS_IsArray(ctx, array) != 1) {
        JS_ThrowTypeError(ctx, "Cannot take a value: not an array");
        return false;
    }
    length = JS_GetPropertyStr(ctx, array, "length");
    ok = !JS_IsException(length) && take_int(ctx, length, 0, max, count);
    JS_FreeValue(ctx, length);
    return ok;
}

char **take_vector(JSContext *ctx, JSValueConst value)
{
    int64_t count;
    char **vector;

    if (!take_count(ctx, value, max_arguments, &count)) return NULL;
    vector = calloc((size_t)count + 1, sizeof *vector);
    if (!vector) {
        JS_ThrowOutOfMemory(ctx);
        return NULL;
    }
    for (int64_t i = 0; i < count; i++) {
        JSValue item = JS_GetPropertyUint32(ctx, value, (uint32_t)i);
        const char *text = JS_IsException(item) ? NULL : take_text(ctx, item);
        if (text) {
            vector[i] = strdup(text);
            JS_FreeCString(ctx, text);
            if (!vector[i]) JS_ThrowOutOfMemory(ctx);
        }
        JS_FreeValue(ctx, item);
        if (!vector[i]) {
            free_vector(vector);
            return NULL;
        }
    }
    return vector;
}

void free_vector(char **vector)
{
    if (!vector) return;
    for (char **item = vector; *item; item++) free(*item);
    free(vector);
}

int take_ints(JSContext *ctx, JSValueConst value, int64_t min, int64_t max, int64_t *result, int room)
{
    int64_t count;

    if (!take_count(ctx, value, room, &count)) return -1;
    for (int64_t i = 0; i < count; i++) {
        JSValue item = JS_GetPropertyUint32(ctx, value, (uint32_t)i);
        bool ok = !JS_IsException(item) && take_int(ctx, item, min, max, &result[i]);
        JS_FreeValue(ctx, item);
        if (!ok) return -1;
    }
    return (int)count;
}

JSValue give_bytes(JSContext *ctx, const uint8_t *bytes, size_t length)
{
    JSValue buffer = JS_NewArrayBufferCopy(ctx, bytes, length);
    JSValue arguments[3] = {buffer, JS_UNDEFINED, JS_UNDEFINED}; /* QuickJS reads three, whatever the count */
    JSValue array;

    if (JS_IsException(buffer)) return buffer;
    array = JS_NewTypedArray(ctx, 3, arguments, JS_TYPED_ARRAY_UINT8);
    JS_FreeValue(ctx, buffer);
    return array;
}

JSValue throw_errno(JSContext *ctx, int error, const char *verb, const char *what)
{
    char message[512], number[16];
    const char *name = strerrorname_np(error), *reason = strerrordesc_np(error);
    JSValue thrown = JS_NewError(ctx);

    if (JS_IsException(thrown)) return thrown;
    if (!name) {
        snprintf(number, sizeof number, "E%d", error);
        name = number;
    }
    snprintf(message, sizeof message, "Cannot %s%s%.300s: %s (%s)", verb, what ? " " : "", what ? what : "",
             reason ? reason : "unknown error", name);
    JS_DefinePropertyValueStr(ctx, thrown, "message", JS_NewString(ctx, message), JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
    JS_DefinePropertyValueStr(ctx, thrown, "code", JS_NewString(ctx, name), JS_PROP_C_W_E);
    JS_DefinePropertyValueStr(ctx, thrown, "errno", JS_NewInt32(ctx, error), JS_PROP_C_W_E);
    return JS_Throw(ctx, thrown);
}

bool give_int(JSContext *ctx, JSValueConst object, const char *name, int64_t value)
{
    return JS_DefinePropertyValueStr(ctx, object, name, JS_NewInt64(ctx, value), JS_PROP_C_W_E) >= 0;
}

JSValue keep_handler(JSContext *ctx, JSValueConst value, const char *name, JSValue *handler)
{
    if (!JS_IsFunction(ctx, value)) return JS_ThrowTypeError(ctx, "Cannot set %s: the handler is not a function", name);
    JSValue old = *handler;
    *handler = JS_DupValue(ctx, value);
    JS_FreeValue(ctx, old);
    return JS_UNDEFINED;
}
