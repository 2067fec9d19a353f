/* A team of threads that share one call, and the barrier they meet at.

   The threads are those of the OpenMP runtime that the host program has loaded (torch's), found at run time:
   a second pool beside it would fight it for the cores. Without one, plain threads are started for the call. */

#ifndef CHARLM_TEAM_H
#define CHARLM_TEAM_H
#include "system.h"
#include <stddef.h>

#define MOST_THREADS 64

#define SPIN_NANOSECONDS 100000 /* about what it costs to sleep and to be woken again */

struct team {
    int size; /* 0 until it is known */
    void (*work)(void *data, int me, struct team *team);
    void *data;
    char apart_0[64];
    int waiting; /* how many have come to the barrier */
    char apart_1[64];
    int round;  /* how many times all have met */
    int asleep; /* how many threads sleep until a number of the team changes */
    char apart_2[64];
};

/* Waits until another thread changes `*place` from `value`. It spins first, as on a quiet machine the change is a few
   microseconds away. If it is not, the other thread has probably lost its core to another process: then this one
   sleeps, so that its core is free for the other, and nothing is burnt meanwhile. */
static void wait_for_change(struct team *team, int *place, int value)
{
    int64_t began = 0;
    for (unsigned spins = 1;; spins++) {
        if (__atomic_load_n(place, __ATOMIC_ACQUIRE) != value)
            return;
        spin_pause();
        if (spins % 64 == 0) {
            const int64_t now = nanoseconds();
            began = began ? began : now;
            if (now - began > SPIN_NANOSECONDS)
                break;
        }
    }
    __atomic_add_fetch(&team->asleep, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(place, __ATOMIC_SEQ_CST) == value)
        sleep_while(place, value);
    __atomic_sub_fetch(&team->asleep, 1, __ATOMIC_SEQ_CST);
}

/* Sets `*place`, and wakes whoever sleeps until it changes. */
static inline void change(struct team *team, int *place, int value)
{
    __atomic_store_n(place, value, __ATOMIC_SEQ_CST);
    if (__builtin_expect(__atomic_load_n(&team->asleep, __ATOMIC_SEQ_CST) != 0, 0))
        wake(place);
}

/* Waits until every thread of the team is here. */
static inline void meet(struct team *team)
{
    if (team->size == 1)
        return;
    int round = __atomic_load_n(&team->round, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&team->waiting, 1, __ATOMIC_ACQ_REL) == team->size) {
        __atomic_store_n(&team->waiting, 0, __ATOMIC_RELAXED);
        change(team, &team->round, round + 1);
        return;
    }
    wait_for_change(team, &team->round, round);
}

static void (*openmp_parallel)(void (*)(void *), void *, unsigned, unsigned);
static int (*openmp_me)(void);
static int (*openmp_size)(void);

static void find_openmp(void)
{
    static int looked;
    if (looked)
        return;
    *(void **)&openmp_me = loaded_function("omp_get_thread_num");
    *(void **)&openmp_size = loaded_function("omp_get_num_threads");
    *(void **)&openmp_parallel = loaded_function("GOMP_parallel");
    if (!openmp_me || !openmp_size)
        openmp_parallel = NULL;
    looked = 1;
}

static void openmp_member(void *data)
{
    struct team *team = data;
    int me = openmp_me();
    if (me == 0) /* the runtime may give fewer threads than were asked for */
        change(team, &team->size, openmp_size());
    else
        wait_for_change(team, &team->size, 0);
    team->work(team->data, me, team);
}

struct member {
    struct team *team;
    int me;
    thread_handle thread;
};

static thread_result THREAD_CALL plain_member(void *data)
{
    struct member *member = data;
    member->team->work(member->team->data, member->me, member->team);
    return 0;
}

static void plain_team(struct team *team, int threads)
{
    struct member members[MOST_THREADS];
    team->size = threads;
    for (int i = 1; i < threads; i++) {
        members[i] = (struct member){.team = team, .me = i};
        if (!start_thread(&members[i].thread, plain_member, &members[i]))
            __builtin_trap(); /* those already started wait for this one */
    }
    team->work(team->data, 0, team);
    for (int i = 1; i < threads; i++)
        join_thread(members[i].thread);
}

/* Runs work(data, me, team) on so many threads, the caller among them, and returns when all are done. */
static void together(void (*work)(void *, int, struct team *), void *data, int64_t threads)
{
    struct team team = {.work = work, .data = data};
    threads = threads > MOST_THREADS ? MOST_THREADS : threads;
    if (threads <= 1) {
        team.size = 1;
        work(data, 0, &team);
        return;
    }
    find_openmp();
    if (openmp_parallel)
        openmp_parallel(openmp_member, &team, (unsigned)threads, 0);
    else
        plain_team(&team, (int)threads);
}

/* The part of `count` things that is `me`'s when `size` share them evenly. */
static inline void share(int64_t count, int me, int size, int64_t *from, int64_t *to)
{
    *from = count * me / size;
    *to = count * (me + 1) / size;
}

#endif
