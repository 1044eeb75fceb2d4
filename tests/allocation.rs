//! The `_into` forms allocate nothing: counted by an allocator of this test binary's own.
#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use half::{bf16, f16};
use lowbit::{
    Affine, Code, Element, Granularity, Scheme, dequantize_into, fake_quantize_into, quantize_into,
};
use ndarray::{Array2, ArrayRef, Dimension, s};

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes asked for by all threads.
static BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Requests of this thread.
    static REQUESTS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // A thread that is ending has no counter any more.
        let _ = REQUESTS.try_with(|requests| requests.set(requests.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn requests_of(work: impl FnOnce()) -> usize {
    let before = REQUESTS.get();
    work();
    REQUESTS.get() - before
}

/// Requests of the three operations on arrays that are there already.
fn requests<A: Element, C: Code, D: Dimension>(
    x: &ArrayRef<A, D>,
    codes: &mut ArrayRef<C, D>,
    out: &mut ArrayRef<A, D>,
    affine: &Affine,
) -> [usize; 3] {
    [
        requests_of(|| quantize_into(x, affine, codes).unwrap()),
        requests_of(|| dequantize_into(codes, affine, out).unwrap()),
        requests_of(|| fake_quantize_into(x, affine, out).unwrap()),
    ]
}

const GRANULARITIES: [Granularity; 6] = [
    Granularity::PerTensor,
    Granularity::PerAxis(0),
    Granularity::PerAxis(1),
    Granularity::PerGroup(5),
    Granularity::PerBlock {
        rows: 3,
        columns: 7,
    },
    Granularity::PerRow,
];

fn wave<A: Element>(rows: usize, columns: usize) -> Array2<A> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let value = (i * columns + j) as f64 * 0.37;
        A::from_real(num_traits::FromPrimitive::from_f64(value.sin()).unwrap_or_default())
    })
}

fn affine(granularity: Granularity, rows: usize, columns: usize) -> Affine {
    let scheme = Scheme::int(4)
        .asymmetric()
        .granularity(granularity)
        .build()
        .unwrap();
    Affine::of(&scheme, &wave::<f32>(rows, columns)).unwrap()
}

fn check_every_layout<A: Element>() {
    for granularity in GRANULARITIES {
        let affine = affine(granularity, 40, 50);
        let x: Array2<A> = wave(40, 50);
        let mut codes = Array2::<i8>::zeros((40, 50));
        let mut out = x.clone();
        assert_eq!(requests(&x, &mut codes, &mut out, &affine), [0; 3]);

        let wide: Array2<A> = wave(100, 80);
        let strided = wide.slice(s![..;-2, ..40]).reversed_axes();
        let mut codes = Array2::<i8>::zeros((50, 40)).reversed_axes();
        let mut out = Array2::<A>::default((40, 100));
        let mut out = out.slice_mut(s![.., ..;2]);
        assert_eq!(requests(&strided, &mut codes, &mut out, &affine), [0; 3]);

        // Up to four axes.
        if granularity == Granularity::PerTensor {
            let x = x.into_shape_with_order((2, 20, 5, 10)).unwrap();
            let mut codes = x.map(|_| 0_i8);
            let mut out = x.clone();
            assert_eq!(requests(&x, &mut codes, &mut out, &affine), [0; 3]);
        }
    }
}

#[test]
fn writing_into_arrays_that_are_there_asks_for_no_memory() {
    // Once for what the process finds out about its machine.
    let x: Array2<f32> = wave(4, 5);
    let affine = affine(Granularity::PerTensor, 4, 5);
    requests(
        &x,
        &mut Array2::<i8>::zeros((4, 5)),
        &mut x.clone(),
        &affine,
    );

    check_every_layout::<f32>();
    check_every_layout::<f64>();
    check_every_layout::<f16>();
    check_every_layout::<bf16>();
}

#[test]
fn large_arrays_cost_no_more_than_starting_the_threads_does() {
    let x: Array2<f32> = wave(1000, 1000);
    for granularity in GRANULARITIES {
        let affine = affine(granularity, 1000, 1000);
        let mut codes = Array2::<i8>::zeros((1000, 1000));
        let mut out = x.clone();
        // Once for what threads keep.
        requests(&x, &mut codes, &mut out, &affine);
        let before = BYTES.load(Ordering::Relaxed);
        requests(&x, &mut codes, &mut out, &affine);
        let bytes = BYTES.load(Ordering::Relaxed) - before;
        // The other test beside this one asks for a few arrays of at most 64 kB.
        assert!(bytes < x.len(), "{bytes} bytes");
    }
}
