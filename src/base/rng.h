/* SPDX-License-Identifier: Apache-2.0 */
/** @file rng.h  Random numbers by counter: a pure function of (seed, stream, counter). */
#ifndef QN_BASE_RNG_H
#define QN_BASE_RNG_H
#include <stdint.h>

/**
 * 64 random bits for a position in a stream; the same on every machine.
 * Source   Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64
 *          finaliser), applied to seed, stream and counter in turn:
 *          h = mix(seed + G); h = mix(h ^ (stream + G)); return mix(h ^ (counter + G)),
 *          G = 0x9E3779B97F4A7C15, all modulo 2^64.
 */
static inline uint64_t qn_rng_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

/** What draws of a stream have in common: qn_rng_u64() is qn_rng_at(qn_rng_key(..), counter). */
static inline uint64_t qn_rng_key(uint64_t seed, uint64_t stream)
{
    const uint64_t g = 0x9E3779B97F4A7C15ULL;
    return qn_rng_mix(qn_rng_mix(seed + g) ^ (stream + g));
}

static inline uint64_t qn_rng_at(uint64_t key, uint64_t counter)
{
    return qn_rng_mix(key ^ (counter + 0x9E3779B97F4A7C15ULL));
}

static inline uint64_t qn_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return qn_rng_at(qn_rng_key(seed, stream), counter);
}

/** Uniform in [0, 1), 53 bits. */
static inline double qn_rng_unit(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (double)(qn_rng_u64(seed, stream, counter) >> 11) * 0x1p-53;
}
#endif
