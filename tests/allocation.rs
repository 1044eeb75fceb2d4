//! The `_into` forms allocate nothing: counted by an allocator of this test binary's own.
#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use half::{bf16, f16};
use lowbit::{
    Activations, Affine, Code, Element, Granularity, Isa, PackedLinear, QTensor, Requantization,
    Scheme, Workspace, dequantize_into, fake_quantize_into, quantize_into,
};
use ndarray::{Array2, ArrayRef, Dimension, s};

/// The system's allocator, counting.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes asked for by all threads.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Held by each test, so that no other one asks for memory meanwhile.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    let _turn = turn();
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
fn products_with_a_workspace_ask_for_memory_once() {
    let _turn = turn();
    let weights: Array2<f32> = wave(40, 1_100);
    for bits in [4, 8] {
        let scheme = Scheme::int(bits).per_axis(0).build().unwrap();
        let tensor = QTensor::quantize(&weights, &Affine::of(&scheme, &weights).unwrap()).unwrap();
        for &isa in Isa::available() {
            let weight_only = PackedLinear::pack_for(isa, &tensor, None).unwrap();
            let weight_only = weight_only.with_threads(1);
            let dynamic = Scheme::int(8).asymmetric().per_row().build().unwrap();
            let dynamic = weight_only
                .clone()
                .with_activations(Activations::Dynamic(dynamic))
                .unwrap();
            let codes = Scheme::int(8).unsigned().asymmetric().build().unwrap();
            let fixed = Affine::per_tensor(codes, 0.01, 100.0).unwrap();
            let stage = Requantization::fixed_point(fixed.clone()).unwrap();
            let fixed = weight_only
                .clone()
                .with_activations(Activations::Static(fixed))
                .unwrap();
            let x: Array2<f32> = wave(30, 1_100);
            let half: Array2<f16> = wave(30, 1_100);
            let mut out = Array2::<f32>::zeros((30, 40));
            let mut small = Array2::<f16>::default((30, 40));
            let mut codes = Array2::<u8>::zeros((30, 40));
            let mut workspace = Workspace::new();
            let mut all = || {
                for layer in [&weight_only, &dynamic, &fixed] {
                    layer.forward_into(&x, &mut out, &mut workspace).unwrap();
                    layer
                        .forward_into(&half, &mut small, &mut workspace)
                        .unwrap();
                }
                fixed
                    .forward_requantized_into(&x, &stage, &mut codes, &mut workspace)
                    .unwrap();
            };
            assert!(requests_of(&mut all) > 0);
            assert_eq!(requests_of(&mut all), 0, "{isa}, {bits} bits");
        }
    }
}

#[test]
fn large_arrays_cost_no_more_than_starting_the_threads_does() {
    let _turn = turn();
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
        assert!(bytes < x.len(), "{bytes} bytes");
    }
}
