/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "price.h"
#include "put.h"

#include <errno.h>
#include <strings.h>

enum { NAMES_BYTES = 512 };

/* Of an accelerator under a profile; NaN: not told. */
typedef struct price {
    const char *name; /* as the profile writes it; NULL: it has none */
    double usd_per_hour, kw;
} price;

static price find_price(json_t *profile, const char *accelerator)
{
    price found = {NULL, (double)NAN, (double)NAN};
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(json_object_get(profile, "accelerators"), name, value)
    {
        if (accelerator != NULL && strcasecmp(name, accelerator) == 0) {
            const json_t *const kw = json_object_get(value, "kw");
            found.name = name;
            found.usd_per_hour = json_number_value(json_object_get(value, "usd_per_hour"));
            found.kw = kw != NULL ? json_number_value(kw) : (double)NAN;
        }
    }
    return found;
}

static qn_status refuse(const bench_data *data, const char *accelerator, qn_error *err)
{
    char names[NAMES_BYTES] = "";
    size_t len = 0;
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(json_object_get(json_array_get(data->prices, 0), "accelerators"), name,
                        value)
    {
        const int n =
            snprintf(names + len, sizeof names - len, "%s%.32s", len > 0 ? ", " : "", name);
        len = n > 0 && len + (size_t)n < sizeof names ? len + (size_t)n : len;
    }
    return qn_fail(err, QN_E_INVAL, 0, __func__, "--accelerator: %.64s, expected one of %s",
                   accelerator, names);
}

/* $ for a million tokens, at so many a second. */
static double usd_per_million(double usd_per_hour, double tokens_per_s)
{
    return tokens_per_s > 0 ? usd_per_hour / (3600 * tokens_per_s / 1e6) : (double)NAN;
}

static json_t *profile_json(const json_t *profile, const price *own, uint32_t n,
                            double output_per_s, double total_per_s)
{
    static const char *const copied[] = {"name", "date", "source"};
    const double usd_per_hour = own->usd_per_hour * n;
    bool failed = false;
    json_t *const made = json_object();
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        put(made, copied[i], json_copy(json_object_get(profile, copied[i])), &failed);
    }
    put(made, "usd_per_hour", put_real(own->usd_per_hour), &failed);
    put(made, "usd_per_hour_of_all", put_real(usd_per_hour), &failed);
    put(made, "usd_per_m_output", put_real(usd_per_million(usd_per_hour, output_per_s)), &failed);
    put(made, "usd_per_m_total", put_real(usd_per_million(usd_per_hour, total_per_s)), &failed);
    return put_whole(made, failed);
}

/* The result that a reference is known by: of a headline row. */
static double headline_of(const json_t *reference)
{
    const json_t *const index = json_object_get(reference, "headline");
    if (!json_is_integer(index)) {
        return (double)NAN;
    }
    const json_t *const row =
        json_array_get(json_object_get(reference, "rows"), (size_t)json_integer_value(index));
    return json_number_value(json_object_get(row, "output_throughput"));
}

/* A rate that costs (in $ or kW) as much per token as the reference's does. */
static void add_even(json_t *list, const json_t *reference, const char *profile, double factor,
                     double output_per_s, bool *failed)
{
    static const char *const copied[] = {"accelerator",  "n_accelerators", "workload",
                                         "quantization", "hit_rate",       "acceptance"};
    const double theirs = headline_of(reference);
    const double even = theirs * factor;
    if (!isfinite(even)) {
        return;
    }
    json_t *const made = json_object();
    put(made, "reference", json_copy(json_object_get(reference, "name")), failed);
    put(made, "profile", json_string(profile), failed);
    put(made, "output_throughput", put_real(even), failed);
    put(made, "ratio", put_real(output_per_s / even), failed);
    put(made, "reference_output_throughput", put_real(theirs), failed);
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++) {
        put(made, copied[i], json_copy(json_object_get(reference, copied[i])), failed);
    }
    put_last(list, made, failed);
}

static json_t *break_even_json(const bench_data *data, const char *accelerator, uint32_t n,
                               double output_per_s)
{
    bool failed = false;
    size_t i = 0;
    json_t *reference = NULL;
    json_t *const list = json_array();
    json_array_foreach(data->references, i, reference)
    {
        const char *const theirs = json_string_value(json_object_get(reference, "accelerator"));
        const double share = n / json_number_value(json_object_get(reference, "n_accelerators"));
        double power = (double)NAN;
        for (size_t k = 0; k < json_array_size(data->prices); k++) {
            json_t *const profile = json_array_get(data->prices, k);
            const price own = find_price(profile, accelerator);
            const price other = find_price(profile, theirs);
            add_even(list, reference, json_string_value(json_object_get(profile, "name")),
                     share * own.usd_per_hour / other.usd_per_hour, output_per_s, &failed);
            power = isfinite(power) ? power : share * own.kw / other.kw;
        }
        add_even(list, reference, "power", power, output_per_s, &failed);
    }
    return put_whole(list, failed);
}

qn_status bench_cost_json(json_t **out, const bench_data *data, const char *accelerator,
                          uint32_t n_accelerators, double output_per_s, double total_per_s,
                          qn_error *err)
{
    const char *name = NULL;
    double kw = (double)NAN;
    bool failed = false;
    *out = NULL;
    if (accelerator == NULL) {
        *out = json_null();
        return QN_OK;
    }
    json_t *profiles = json_array();
    for (size_t i = 0; i < json_array_size(data->prices); i++) {
        json_t *const profile = json_array_get(data->prices, i);
        const price own = find_price(profile, accelerator);
        if (own.name == NULL) {
            continue;
        }
        name = own.name;
        kw = isfinite(kw) ? kw : own.kw;
        put_last(profiles, profile_json(profile, &own, n_accelerators, output_per_s, total_per_s),
                 &failed);
    }
    if (name == NULL) {
        json_decref(profiles);
        return refuse(data, accelerator, err);
    }
    json_t *const made = json_object();
    put(made, "accelerator", json_string(name), &failed);
    put(made, "n", json_integer(n_accelerators), &failed);
    put(made, "profiles", profiles, &failed);
    put(made, "kw", put_real(kw), &failed);
    put(made, "output_per_s_per_kw", put_real(output_per_s / (kw * n_accelerators)), &failed);
    put(made, "break_even", break_even_json(data, accelerator, n_accelerators, output_per_s),
        &failed);
    *out = put_whole(made, failed);
    return *out != NULL ? QN_OK : qn_fail(err, QN_E_NOMEM, ENOMEM, __func__, "cost: no memory");
}
