use super::*;
use crate::dag_text::Dag;

#[test]
fn positions_twins_and_the_floor() {
    let dag = Dag::parse("A1 B1 C1 D1 B1'\nA2 <- A1 B1 C1\nC2 <- A1 B1' C1\nA3 <- A2 C2");
    let mut graph = Graph::new(dag.maker.committee.clone());
    for (name, event) in &dag.events {
        if name == "A3" {
            assert!(graph.missing(event).is_empty());
        }
        graph.insert(event.clone());
    }
    let b = MemberIndex(1);
    assert_eq!(graph.slot(Round(1), b).count(), 2);
    assert_eq!(graph.first(Round(1), b).unwrap().event, *dag.find("B1"));
    assert_eq!(graph.weight(Round(1)), 4);
    assert_eq!((graph.top(), graph.len()), (Round(3), 8));
    let handle = graph.find(dag.find("C2").reference()).unwrap();
    let cited: Vec<u16> = graph.node(handle).unwrap().previous.iter().collect();
    assert_eq!(cited, [0, 2, 4]);
    graph.raise_floor(Round(2));
    assert!(graph.find(dag.find("C2").reference()).is_none());
    assert_eq!(
        (graph.floor(), graph.len(), graph.highest(b)),
        (Round(2), 1, Round(1))
    );
    assert!(graph.missing(dag.find("A3")).is_empty());
    graph.raise_floor(Round(9));
    assert_eq!((graph.top(), graph.len()), (Round(9), 0));
}
