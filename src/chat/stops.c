/* SPDX-License-Identifier: Apache-2.0 */
/* Knuth, Morris and Pratt's search for each stop text.  What is held back is the beginning of one
 * of the stop texts, so it needs no buffer. */
#include "chat/stops.h"

/* Bytes of the stop text that the answer ends with once @p byte has come. */
static uint32_t advance(const qn_chat_stop *stop, uint32_t n_matched, char byte)
{
    while (n_matched > 0 && stop->text[n_matched] != byte) {
        n_matched = stop->border[n_matched - 1];
    }
    return n_matched + (stop->text[n_matched] == byte ? 1 : 0);
}

qn_status qn_chat_stops_init(qn_chat_stops *stops, const char *const *texts, size_t n_texts,
                             qn_error *err)
{
    *stops = (qn_chat_stops){0};
    if (n_texts > QN_STOPS_MAX) {
        return qn_fail(err, QN_E_INVAL, 0, __func__, "stop texts: %zu, at most %d expected",
                       n_texts, QN_STOPS_MAX);
    }
    for (size_t i = 0; i < n_texts; i++) {
        const qn_str text = qn_str_of(texts[i]);
        qn_chat_stop *const stop = &stops->stops[i];
        if (text.len == 0 || text.len > QN_STOP_BYTES_MAX) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "stop text %zu (--stop): %zu bytes, 1 to %d expected", i, text.len,
                           QN_STOP_BYTES_MAX);
        }
        if (!qn_utf8_is_valid(text)) {
            return qn_fail(err, QN_E_INVAL, 0, __func__,
                           "stop text %zu (--stop): a broken character, UTF-8 expected", i);
        }
        stop->len = (uint32_t)text.len;
        memcpy(stop->text, text.ptr, text.len);
        for (uint32_t k = 1; k < stop->len; k++) {
            stop->border[k] = (uint16_t)advance(stop, stop->border[k - 1], stop->text[k]);
        }
    }
    stops->n_stops = n_texts;
    return QN_OK;
}

/* Move all stop texts on by a byte; the longest that is complete now, NULL for none. */
static const qn_chat_stop *find_match(qn_chat_stops *stops, char byte)
{
    const qn_chat_stop *found = NULL;
    for (size_t i = 0; i < stops->n_stops; i++) {
        qn_chat_stop *const stop = &stops->stops[i];
        stop->n_matched = advance(stop, stop->n_matched, byte);
        if (stop->n_matched == stop->len && (found == NULL || stop->len > found->len)) {
            found = stop;
        }
    }
    return found;
}

/* Hold back the longest beginning of a stop text that the answer ends with. */
static void hold(qn_chat_stops *stops)
{
    for (size_t i = 0; i < stops->n_stops; i++) {
        if (stops->stops[i].n_matched > stops->n_held) {
            stops->held = &stops->stops[i];
            stops->n_held = stops->held->n_matched;
        }
    }
}

static qn_str held(const qn_chat_stops *stops)
{
    return (qn_str){.ptr = stops->n_held > 0 ? stops->held->text : NULL, .len = stops->n_held};
}

bool qn_chat_stops_feed(qn_chat_stops *stops, qn_str text, qn_str out[2])
{
    const qn_str before = held(stops);
    const qn_chat_stop *found = NULL;
    size_t n_read = 0;
    while (n_read < text.len && found == NULL) {
        found = find_match(stops, text.ptr[n_read++]);
    }
    stops->n_held = 0;
    stops->found = found;
    if (found == NULL) {
        hold(stops);
    }
    /* A stop text is valid and so is the answer: what begins here begins with a character. */
    const size_t n_out = before.len + n_read - (found != NULL ? found->len : stops->n_held);
    const size_t n_before = n_out < before.len ? n_out : before.len;
    out[0] = (qn_str){.ptr = before.ptr, .len = n_before};
    out[1] = (qn_str){.ptr = text.ptr, .len = n_out - n_before};
    return found != NULL;
}

qn_str qn_chat_stops_end(qn_chat_stops *stops)
{
    const qn_str text = held(stops);
    stops->n_held = 0;
    for (size_t i = 0; i < stops->n_stops; i++) {
        stops->stops[i].n_matched = 0;
    }
    return text;
}
