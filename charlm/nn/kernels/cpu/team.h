/* A team of threads that share one call, and the barrier they meet at.

   The threads are those of the OpenMP runtime that the host program has loaded (torch's), found at run time:
   a second pool beside it would fight it for the cores. Without one, plain threads are started for the call. */

#ifndef CHARLM_TEAM_H
#define CHARLM_TEAM_H
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>

#define MOST_THREADS 64

#if defined(__x86_64__) || defined(__i386__)
#define spin_pause() __builtin_ia32_pause()
#else
#define spin_pause() ((void)0)
#endif

struct team {
    int size;
    void (*work)(void *data, int me, struct team *team);
    void *data;
    char apart_0[64];
    int waiting; /* how many have come to the barrier */
    char apart_1[64];
    int round; /* how many times all have met */
    char apart_2[64];
};

/* Waits until every thread of the team is here. It spins, as the next step is a few microseconds away. On a machine
   with other things to do it lets go of the core only after several milliseconds, for whoever yields loses a whole
   time slice and then keeps the others waiting. */
static inline void meet(struct team *team)
{
    if (team->size == 1)
        return;
    int round = __atomic_load_n(&team->round, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&team->waiting, 1, __ATOMIC_ACQ_REL) == team->size) {
        __atomic_store_n(&team->waiting, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&team->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&team->round, __ATOMIC_ACQUIRE) == round; spins++)
        if (spins < 400000)
            spin_pause();
        else
            sched_yield();
}

static void (*openmp_parallel)(void (*)(void *), void *, unsigned, unsigned);
static int (*openmp_me)(void);
static int (*openmp_size)(void);

static void find_openmp(void)
{
    static int looked;
    if (looked)
        return;
    *(void **)&openmp_me = dlsym(RTLD_DEFAULT, "omp_get_thread_num");
    *(void **)&openmp_size = dlsym(RTLD_DEFAULT, "omp_get_num_threads");
    *(void **)&openmp_parallel = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    if (!openmp_me || !openmp_size)
        openmp_parallel = NULL;
    looked = 1;
}

static void openmp_member(void *data)
{
    struct team *team = data;
    int me = openmp_me();
    if (me == 0) /* the runtime may give fewer threads than were asked for */
        __atomic_store_n(&team->size, openmp_size(), __ATOMIC_RELEASE);
    else
        while (!__atomic_load_n(&team->size, __ATOMIC_ACQUIRE))
            spin_pause();
    team->work(team->data, me, team);
}

struct member {
    struct team *team;
    int me;
    pthread_t thread;
};

static void *plain_member(void *data)
{
    struct member *member = data;
    member->team->work(member->team->data, member->me, member->team);
    return NULL;
}

static void plain_team(struct team *team, int threads)
{
    struct member members[MOST_THREADS];
    team->size = threads;
    for (int i = 1; i < threads; i++) {
        members[i] = (struct member){.team = team, .me = i};
        if (pthread_create(&members[i].thread, NULL, plain_member, &members[i]))
            __builtin_trap(); /* those already started wait for this one */
    }
    team->work(team->data, 0, team);
    for (int i = 1; i < threads; i++)
        pthread_join(members[i].thread, NULL);
}

/* Runs work(data, me, team) on so many threads, the caller among them, and returns when all are done. */
static void together(void (*work)(void *, int, struct team *), void *data, long threads)
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
static inline void share(long count, int me, int size, long *from, long *to)
{
    *from = count * me / size;
    *to = count * (me + 1) / size;
}

#endif
