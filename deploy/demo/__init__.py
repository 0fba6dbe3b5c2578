"""The rehearsal of the main job: a simulated modality, a receiving PACS, a table and a report."""
