use super::*;

/// A figure of the benchmark must not depend on when it was measured. With one member in each of ten regions half of the members
/// take a round more than the others, so that the median of all transactions is now that of one half and now that of the other.
#[test]
fn between_regions_every_second_gives_the_same_figure() {
    let ideals = region_ideals_us(10);
    let mut seconds = std::collections::BTreeMap::<u64, Vec<Latency>>::new();
    for sample in samples(Row::Regions, 10, true) {
        let second = sample.submitted_us / SECOND;
        seconds.entry(second).or_default().push(sample);
    }
    // The first and the last second are measured in part.
    let whole = seconds.values().skip(1).take(seconds.len() - 2);
    let figures: Vec<f64> = whole
        .map(|samples| mean(&own_ratios(samples, &ideals)))
        .collect();
    assert!(figures.len() >= 6, "{figures:?}");
    let least = figures.iter().copied().fold(f64::MAX, f64::min);
    let most = figures.iter().copied().fold(0.0, f64::max);
    assert!(most <= least * 1.03, "it depends on when: {figures:?}");
    assert!(most <= 1.25, "farther from the ideal: {figures:?}");
}
